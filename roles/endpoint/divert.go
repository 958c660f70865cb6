package endpoint

func openDivert(Spec, *transcript) (Endpoint, error) { return nil, unsupported("divert sockets") }
