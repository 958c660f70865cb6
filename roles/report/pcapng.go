package report

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"pfdivert/matrix"
	"pfdivert/matrix/evidence"
)

// The blocks and options of a pcapng file that are written here
// (draft-ietf-opsawg-pcapng, sections 3.5 and 4).
const (
	sectionHeader        = 0x0a0d0d0a
	interfaceDescription = 1
	enhancedPacket       = 6

	byteOrderMagic = 0x1a2b3c4d

	optComment    = 1
	optApp        = 4 // shb_userappl
	optName       = 2 // if_name
	optText       = 3 // if_description
	optResolution = 9 // if_tsresol
	optFlags      = 2 // epb_flags
)

// WritePcapng writes the packets that a host captured, "local" or "remote", ordered by time, as a
// pcapng file for Wireshark: in one file for both hosts, each packet would be its own
// retransmission. The interface is named as the host, with its own name appended if the host
// captured on more than one. Times are those of the host's clock.
func WritePcapng(w io.Writer, r matrix.Result, host string) error {
	var f pcapng
	title := fmt.Sprintf("%s: %s", printable(r.Name), r.Verdict)
	if r.Reason != "" {
		title += fmt.Sprintf(" (%s): %s", r.Reason, printable(r.Detail))
	}
	f.section(title)
	switch {
	case r.Evidence == nil:
	case host == "local":
		f.host(host, r.Evidence.Local)
	default:
		f.host(host, r.Evidence.Remote)
	}
	sort.SliceStable(f.packets, func(i, j int) bool { return f.packets[i].Time.Before(f.packets[j].Time) })
	for _, p := range f.packets {
		f.packet(p)
	}
	_, err := w.Write(f.Bytes())
	return err
}

type pcapng struct {
	bytes.Buffer
	interfaces uint32
	packets    []captured
}

// captured is a packet with the number of its interface in the file.
type captured struct {
	evidence.Packet
	number uint32
}

// host describes a host's interfaces and takes its packets. One that captured none has its
// interface, too: that nothing came is then seen in Wireshark as well.
func (f *pcapng) host(name string, c evidence.Record) {
	packets := c.Packets
	uncaptured := func(m string) bool { return strings.HasPrefix(m, "packets: ") }
	if len(packets) == 0 && len(c.Answers) > 0 && !slices.ContainsFunc(c.Missing, uncaptured) {
		f.description(name, "no packet of this target", evidence.LinkEthernet)
	}
	type nic struct {
		name string
		link evidence.LinkType
	}
	numbers := map[nic]uint32{}
	for _, p := range packets {
		key := nic{p.Interface, p.Link}
		number, ok := numbers[key]
		if !ok {
			number = f.interfaces
			called := name
			if len(numbers) > 0 {
				called += " " + printable(p.Interface)
			}
			f.description(called, printable(p.Interface), p.Link)
			numbers[key] = number
		}
		f.packets = append(f.packets, captured{p, number})
	}
}

// block writes a block: its type, its length, the body, the length again.
func (f *pcapng) block(kind uint32, body []byte) {
	size := uint32(12 + len(body))
	f.Write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, kind), size))
	f.Write(body)
	f.Write(binary.LittleEndian.AppendUint32(nil, size))
}

// option appends an option, padded to 4 bytes.
func option(b []byte, code uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, code)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return padded(append(b, value...))
}

// lastOption is opt_endofopt.
var lastOption = []byte{0, 0, 0, 0}

func padded(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// maxComment is shorter than what an option can hold.
const maxComment = 4096

func (f *pcapng) section(title string) {
	b := binary.LittleEndian.AppendUint32(nil, byteOrderMagic)
	b = append(b, 1, 0, 0, 0) // version 1.0
	b = binary.LittleEndian.AppendUint64(b, ^uint64(0))
	b = option(b, optComment, []byte(title[:min(len(title), maxComment)]))
	b = option(b, optApp, []byte("pfdivert"))
	f.block(sectionHeader, append(b, lastOption...))
}

func (f *pcapng) description(name, nic string, link evidence.LinkType) {
	b := binary.LittleEndian.AppendUint16(nil, uint16(link))
	b = append(b, 0, 0, 0, 0, 0, 0) // reserved; no limit to what was kept of a packet
	b = option(b, optName, []byte(name[:min(len(name), maxComment)]))
	b = option(b, optText, []byte(nic[:min(len(nic), maxComment)]))
	b = option(b, optResolution, []byte{9}) // nanoseconds
	f.block(interfaceDescription, append(b, lastOption...))
	f.interfaces++
}

func (f *pcapng) packet(p captured) {
	at := uint64(p.Time.UnixNano())
	b := binary.LittleEndian.AppendUint32(nil, p.number)
	b = binary.LittleEndian.AppendUint32(b, uint32(at>>32))
	b = binary.LittleEndian.AppendUint32(b, uint32(at))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(p.Data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(p.Length, len(p.Data))))
	b = padded(append(b, p.Data...))
	if direction := map[string]uint32{"in": 1, "out": 2}[p.Direction]; direction != 0 {
		b = option(b, optFlags, binary.LittleEndian.AppendUint32(nil, direction))
		b = append(b, lastOption...)
	}
	f.block(enhancedPacket, b)
}
