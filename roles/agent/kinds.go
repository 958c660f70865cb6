package agent

import (
	"pfdivert/matrix/script"
	"pfdivert/roles/wire"
)

// stepKinds and socketKinds are the kinds of steps and of sockets that scripts have.
var (
	stepKinds = []script.Step{
		script.Open{}, script.Connect{}, script.Connected{}, script.Accept{}, script.Send{}, script.Receive{},
		script.Relay{}, script.RelayAll{}, script.SendBurst{}, script.ReceiveBurst{}, script.RelayBurst{},
		script.Pour{}, script.Shutdown{}, script.Reset{}, script.SendUrgent{}, script.ReceiveUrgent{},
		script.FastOpen{}, script.KeepBurst{}, script.FreeBurst{}, script.HandOn{},
		script.Turn{}, script.Rest{}, script.CloseConn{}, script.Close{}, script.Fence{}, script.Counters{},
		script.Lookup{}, script.Kill{}, script.DropTCP{}, script.TCPState{}, script.Undelivered{}, script.Natlook{},
		script.OriginalDst{}, script.BridgeGoes{}, script.Middlebox{}, script.Pipe{},
	}
	socketKinds = []script.Socket{script.Stream{}, script.Datagram{}, script.RawIP{}, script.Echo{}, script.Divert{}}

	_ = wire.Union(stepKinds...)
	_ = wire.Union(socketKinds...)
)
