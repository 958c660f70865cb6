package pf

var systemNatlook = openbsdNatlook
