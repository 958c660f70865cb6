package pfconf

// Undo is how one change to a host is undone. It is written to a file before the
// change is made, so that a later run can fix what a killed one left.
type Undo struct {
	// Do names the step, with the package that knows it before the slash:
	// "nft/table".
	Do   string   `json:"do"`
	Args []string `json:"args,omitempty"`
}

// Journal records an Undo durably. It is called before the change; when it
// fails, the change is not made. Undoing a change that was not made must do
// nothing.
type Journal func(Undo) error
