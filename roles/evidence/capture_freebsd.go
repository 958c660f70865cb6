package evidence

import "strconv"

var layout = freebsdLayout(strconv.IntSize / 8)
