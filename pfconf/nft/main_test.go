package nft

import (
	"os"
	"testing"

	"pfdivert/roles/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
