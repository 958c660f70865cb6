package nft

import (
	"golang.org/x/sys/unix"

	"pfdivert/pfconf"
	"pfdivert/pfconf/need"
)

// flowtable is a flowtable of a table's, with the interfaces whose packets it is asked for.
type flowtable struct {
	table      table
	name       string
	interfaces []string
}

// Messages and attributes of flowtables, linux/netfilter/nf_tables.h.
const (
	newFlowtable       = 22 // NFT_MSG_NEWFLOWTABLE
	flowtableTable     = 1  // NFTA_FLOWTABLE_TABLE, …
	flowtableName      = 2
	flowtableHook      = 3
	flowtableHookNum   = 1 // NFTA_FLOWTABLE_HOOK_NUM, …
	flowtablePriority  = 2
	flowtableDevices   = 3
	flowtableDevice    = 1 // NFTA_DEVICE_NAME
	flowStatementTable = 1 // NFTA_FLOW_TABLE_NAME
)

func (r *request) newFlowtable(f flowtable) {
	r.nft(f.table.family, newFlowtable, exclusive)
	r.AttrString(flowtableTable, f.table.name)
	r.AttrString(flowtableName, f.name)
	hook := r.Nest(flowtableHook)
	r.Attr32(flowtableHookNum, 0) // NF_NETDEV_INGRESS
	r.Attr32(flowtablePriority, 0)
	devices := r.Nest(flowtableDevices)
	for _, name := range f.interfaces {
		r.AttrString(flowtableDevice, name)
	}
	r.Close(devices)
	r.Close(hook)
}

// flowAdd has the flowtable take the packet's flow.
type flowAdd struct{ table string }

func (s flowAdd) String() string { return "flow add @" + s.table }

func (s flowAdd) encode(r *request) {
	r.Expression("flow_offload", func() { r.AttrString(flowStatementTable, s.table) })
}

// Offload makes a flowtable that takes all TCP that this host forwards between the interfaces, in
// the current network namespace. Where add is false, no rule has it take any. Nothing takes it
// back.
func Offload(interfaces []string, add bool) error {
	s, err := openSocket()
	if err != nil {
		return err
	}
	s.mu.Lock()
	r := s.transaction()
	t := table{familyInet, TableName + "-flows"}
	c := chain{table: t, name: "forward", hook: "forward", number: unix.NF_INET_FORWARD}
	r.newTable(t, exclusive)
	r.newFlowtable(flowtable{t, "flows", interfaces})
	r.newChain(c)
	if add {
		r.newRule(kernelRule{chain: c, statements: []statement{ofProto{pfconf.TCP.Number(pfconf.Inet)},
			flowAdd{"flows"}}}, 0)
	}
	err = s.commitAll(r)
	s.mu.Unlock()
	if a := refusal(err); err != nil && a.Support == No {
		err = &need.MissingError{Feature: need.Flowtable, Err: err}
	}
	if closed := s.close(); err == nil {
		err = closed
	}
	return wrap("make a flowtable", err)
}
