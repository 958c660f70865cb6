package twin

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of NFT_MSG_NEWSET that are newer than golang.org/x/sys has them.
const (
	nftaSetType  = 19 // Linux 6.18: the name of a kernel function
	nftaSetCount = 20 // Linux 6.18: number of elements
)

// Flags of nf_tables (linux/netfilter/nf_tables.h).
const (
	tableOwner   = 2 // NFT_TABLE_F_OWNER
	chainOffload = 2 // NFT_CHAIN_HW_OFFLOAD
	chainBinding = 4 // NFT_CHAIN_BINDING: of `jump { … }`
	setAnonymous = unix.NFT_SET_ANONYMOUS
	setInterval  = unix.NFT_SET_INTERVAL
	setConcat    = 0x80 // NFT_SET_CONCAT
	elementEnd   = unix.NFT_SET_ELEM_INTERVAL_END
)

// bigSet is how many elements of a set are read. The time to read all of a set with intervals is
// quadratic in their number; see Config.Ask.
const bigSet = 5000

// readNFT reads all of nf_tables, of one generation.
func (d *Dump) readNFT(ctx context.Context) error {
	if ok, err := netlinkHas(unix.NETLINK_NETFILTER); err != nil || !ok {
		return err
	}
	if ok, err := nfTables.there(); err != nil || !ok {
		return err
	}
	c, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer c.Close()
	for range dumpTries {
		before, err := generation(c)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // nfnetlink knows no nf_tables
		} else if err != nil {
			return err
		}
		d.NFT, d.Partial = nil, nil
		if err := d.readTables(ctx, c); errors.Is(err, unix.ENOENT) {
			continue // a set went meanwhile
		} else if err != nil {
			return err
		}
		after, err := generation(c)
		if err != nil {
			return err
		}
		if bytes.Equal(before, after) {
			return nil
		}
	}
	return errChanges
}

// generation is NFTA_GEN_ID: another number after each change.
func generation(c *netlink.Conn) ([]byte, error) {
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4),
	})
	if err != nil {
		return nil, err
	}
	if len(answers) == 0 {
		return nil, errors.New("no answer about the generation of nf_tables")
	}
	all, err := split(answers[0].Data, 4)
	if err != nil {
		return nil, err
	}
	return all.get(unix.NFTA_GEN_ID), nil
}

func (d *Dump) readTables(ctx context.Context, c *netlink.Conn) error {
	for _, part := range []struct {
		what string
		get  uint16
	}{
		{"tables", unix.NFT_MSG_GETTABLE}, {"chains", unix.NFT_MSG_GETCHAIN}, {"objects", unix.NFT_MSG_GETOBJ},
		{"sets", unix.NFT_MSG_GETSET}, {"flowtables", unix.NFT_MSG_GETFLOWTABLE}, {"rules", unix.NFT_MSG_GETRULE},
	} {
		all, err := netfilterDump(ctx, c, unix.NFNL_SUBSYS_NFTABLES, part.get, unix.NFPROTO_UNSPEC, nil)
		if err != nil {
			return fmt.Errorf("list of %s: %w", part.what, err)
		}
		d.NFT = append(d.NFT, all...)
		if part.get != unix.NFT_MSG_GETSET {
			continue
		}
		for _, m := range all {
			if err := d.readElements(ctx, c, m.Data); err != nil {
				return fmt.Errorf("elements of sets: %w", err)
			}
		}
	}
	return nil
}

// readElements reads the elements of the set of a message NFT_MSG_NEWSET, or a sample of them.
func (d *Dump) readElements(ctx context.Context, c *netlink.Conn, set []byte) error {
	about, err := split(set, 4)
	if err != nil {
		return err
	}
	request := attrs{
		{unix.NFTA_SET_ELEM_LIST_TABLE, about.get(unix.NFTA_SET_TABLE)},
		{unix.NFTA_SET_ELEM_LIST_SET, about.get(unix.NFTA_SET_NAME)},
	}.bytes()
	count, counted := net32(about.get(nftaSetCount)), about.has(nftaSetCount)
	if counted && count <= bigSet || keyParts(net32(about.get(unix.NFTA_SET_KEY_TYPE))) == nil {
		all, err := netfilterDump(ctx, c, unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETSETELEM, set[0], request)
		d.NFT = append(d.NFT, all...)
		return err
	}
	// A socket of its own: closing it ends the dump.
	own, err := dial(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return err
	}
	defer own.Close()
	if _, err = own.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM,
			Flags: netlink.Request | netlink.Dump},
		Data: append([]byte{set[0], unix.NFNETLINK_V0, 0, 0}, request...),
	}); err != nil {
		return err
	}
	seen := 0
	for m, err := range own.ReceiveIter() {
		if err != nil {
			return err
		}
		d.NFT = append(d.NFT, NetlinkMessage{uint16(m.Header.Type), m.Data})
		list, err := split(m.Data, 4)
		if err != nil {
			return err
		}
		elements, err := list.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		if err != nil {
			return err
		}
		if seen += len(elements); seen > bigSet {
			d.Partial = append(d.Partial, SetName{set[0], text(about.get(unix.NFTA_SET_TABLE)),
				text(about.get(unix.NFTA_SET_NAME))})
			_ = own.Close() // else the rest would be read
			break
		}
	}
	return nil
}
