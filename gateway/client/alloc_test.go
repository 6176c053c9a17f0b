package client

import (
	"bytes"
	"testing"

	"github.com/lxzan/gws"

	"tickgate/codec"
	"tickgate/codec/native"
)

// TestTicksAllocateNothing: from the frame to the handler no tick costs memory.
func TestTicksAllocateNothing(t *testing.T) {
	for _, spelling := range []native.Spelling{native.MsgPack, native.JSON} {
		c, err := New(Options{URL: "ws://x", Subprotocol: spelling.Subprotocol()})
		if err != nil {
			t.Fatal(err)
		}
		updates := 0
		var line []byte
		h := Handler{Update: func(u *Update) error {
			updates++
			line = AppendLine(line[:0], u)
			return nil
		}}
		s := &session{client: c, handler: &h, topics: map[topicID]*topic{
			{codec.ChannelTicker, 7}: {symbol: "BTCUSDT", known: true, epoch: 1},
			{codec.ChannelTrades, 7}: {symbol: "BTCUSDT", known: true, epoch: 1},
		}}
		state := codec.State{Epoch: 1, Last: codec.Trade{Price: codec.MustDecimal("61500.12"), IngestTime: 1e18, EventTime: 1e18}}
		entry := codec.TradeEntry{Kind: codec.KindTrade}
		buf := make([]byte, 0, 4096)
		data := new(bytes.Buffer)
		message := gws.Message{Opcode: gws.OpcodeBinary, Data: data}
		if spelling.Text() {
			message.Opcode = gws.OpcodeText
		}
		n := testing.AllocsPerRun(100, func() {
			state.Seq++
			state.Last.Seq, state.Last.No = state.Seq, state.Seq
			entry.Trade = state.Last
			b := spelling.BeginFrame(buf, state.Seq, 1e18)
			b = spelling.AppendState(b, codec.ChannelTicker, codec.ViewAll, 7, "BTCUSDT", &state)
			b = spelling.AppendTrade(b, codec.ViewLast, 7, "BTCUSDT", &entry)
			b = spelling.EndFrame(b, 0, 2)
			data.Reset()
			data.Write(b)
			if err := s.frame(&message, 1e18); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 || updates == 0 {
			t.Errorf("%s: %v allocations for %d updates", spelling.Subprotocol(), n, updates)
		}
	}
}
