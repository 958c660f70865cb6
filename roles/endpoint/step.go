package endpoint

import (
	"fmt"
	"strings"

	"pfdivert/matrix/script"
)

// maxRewrites bounds what a step of another host may ask for.
const maxRewrites = 8

// Do carries out a step on the socket.
func Do(e Endpoint, step script.SocketStep) (out script.Outcome, err error) {
	one := func(m script.Message, err error) error {
		if err == nil {
			out.Messages = []script.Message{m}
		}
		return err
	}
	switch st := step.(type) {
	case script.Connect:
		err = e.Connect()
		out.Local, out.Peer = e.Names()
	case script.Connected:
		err = e.Connected(Now)
		out.Local, out.Peer = e.Names()
	case script.Accept:
		err = e.Accept(Now)
		out.Local, out.Peer = e.Names()
	case script.Send:
		err = e.Send([]byte(st.Data), st.Seq)
	case script.Receive:
		err = one(e.Receive(Now))
	case script.Relay:
		err = one(e.Relay([]byte(st.Old), []byte(st.New)))
	case script.RelayAll:
		if len(st.Rewrites) > maxRewrites {
			return out, fmt.Errorf("%d rewrites are over the limit of %d", len(st.Rewrites), maxRewrites)
		}
		out.Messages, err = RelayAll(e, st.Rewrites)
	case script.SendBurst:
		err = SendBurst(e, st.Burst)
	case script.ReceiveBurst:
		out.Tally, err = tally(ReceiveBurst(e, st.Burst))
	case script.RelayBurst:
		out.Tally, err = tally(RelayBurst(e, st.Burst, st.Line))
	case script.Turn:
		err = Turn(e, []byte(st.Old), []byte(st.New), st.In)
	case script.Rest:
		out.Messages, err = e.Rest()
		out.Text = strings.Join(e.Errors(), "; ")
	case script.CloseConn:
		err = e.CloseConn()
	case script.Close:
		out.Text = strings.Join(e.Errors(), "; ")
		err = e.Close()
	default:
		err = fmt.Errorf("there is no step %T", st)
	}
	return out, err
}

func tally(t script.Tally, err error) (*script.Tally, error) { return &t, err }
