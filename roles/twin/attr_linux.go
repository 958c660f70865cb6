package twin

// nested is a message, or an attribute, whose own attributes are asked for by number: what is not
// there, or is cut, is empty.
type nested struct{ b []byte }

func (n nested) get(kind uint16) nested {
	all, _ := split(n.b, 0)
	return nested{all.get(kind)}
}

func (n nested) text() string { return text(n.b) }

// number is of 16 or 32 bits, as netfilter's are: in network order.
func (n nested) number() uint32 {
	if len(n.b) == 1 {
		return uint32(n.b[0])
	}
	return net32(n.b)
}

// numberOf is the number of one inside, 0 if it is not there.
func (n nested) numberOf(kind uint16) uint32 { return n.get(kind).number() }
