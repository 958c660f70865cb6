package twin

// Twin is a copy of a host's network configuration that flows can be run in. It is not safe for
// concurrent use. The caller closes it.
//
// There are two namespaces. The copy is in Inside. The other end of each of its devices is in
// Outside, with the same name and the same index, and there is everyone else: clients and the
// internet.
type Twin struct {
	Config  *Config
	Inside  *Netns
	Outside *Netns
}
