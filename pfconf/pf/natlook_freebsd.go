package pf

var systemNatlook = freebsdNatlook
