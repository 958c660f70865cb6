package kernel

import (
	"slices"
	"testing"
)

func TestBehindDashes(t *testing.T) {
	for line, want := range map[string][]string{
		"console=ttyS0 -- -as kselftest\n":                {"-as", "kselftest"},
		"root=/dev/sda quiet\n":                           nil,
		"a=\"x -- y\" -- run  \"inet-args tcp\" -count 2": {"run", "inet-args tcp", "-count", "2"},
		"-- -- x": {"--", "x"},
		"--":      nil,
	} {
		if got := behindDashes(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestMatching(t *testing.T) {
	const aliases = "nfnetlink nfnetlink\ntcp_diag tcp_diag\nudp_diag udp_diag\nvirtio_pci virtio_pci\nnet-pf-16-proto-4-type-2-6 tcp_diag\nnet-pf-16-proto-4-type-2-17 udp_diag\npci:v00001AF4d*sv* virtio_pci\n"
	for asked, want := range map[string][]string{
		"tcp-diag":                         {"tcp_diag"},
		"net-pf-16-proto-4-type-2-17":      {"udp_diag"},
		"pci:v00001AF4d00001043sv00001AF4": {"virtio_pci"},
		"nft-expr-none":                    nil,
	} {
		if got := matching(asked, aliases); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", asked, got, want)
		}
	}
}
