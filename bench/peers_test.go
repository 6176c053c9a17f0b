package bench

import (
	"bytes"
	"strings"
	"testing"

	"tickgate/codec"
	"tickgate/codec/native"
)

func subscribeTo(names ...string) *codec.Command {
	c := &codec.Command{Op: codec.OpSubscribe, Ref: 3, Channel: codec.ChannelTrades}
	for _, n := range names {
		c.Symbols.Append(codec.SymbolItem{Name: []byte(n)})
	}
	return c
}

func TestCentrifugeSpeaker(t *testing.T) {
	s := speakCentrifuge("")
	want := `{"id":196609,"subscribe":{"channel":"trades:A"}}` + "\n" + `{"id":196610,"subscribe":{"channel":"trades:B-1","data":{"ref":3}}}`
	want = strings.NewReplacer("196609", "196610", "196610", "196611").Replace(want)
	if got := string(s.Command(nil, subscribeTo("A", "B-1"))); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	var got []string
	rows := func(b []byte) error { got = append(got, string(b)); return nil }
	msg := `{"id":1,"connect":{"client":"x"}}` + "\n" + `{"push":{"channel":"trades:A","pub":{"data":{"frame":1,"events":[]}}}}` + "\n{}\n" +
		`{"id":2,"subscribe":{"data":{"frame":2}}}`
	answer, err := s.Read(new([]byte), []byte(msg), rows)
	if err != nil || string(answer) != "{}" || strings.Join(got, " ") != `{"frame":1,"events":[]} {"frame":2}` {
		t.Errorf("%q, %q, %v", got, answer, err)
	}
	for _, bad := range []string{`{"id":2,"error":{"code":102,"message":"unknown channel"}}`, `{"push"`, "x"} {
		if _, err := s.Read(new([]byte), []byte(bad), rows); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if s.Command(nil, &codec.Command{Op: codec.OpLedger}) != nil {
		t.Error("it has no ledger")
	}
}

func TestNATSSpeaker(t *testing.T) {
	s := speakNATS("")
	b := s.Command(nil, subscribeTo("A.B", "C"))
	if !bytes.HasPrefix(b, []byte("SUB trades.A_B trades.A_B\r\nSUB trades.C trades.C\r\nSUB _INBOX.")) || !bytes.Contains(b, []byte("\r\nPUB snapshot _INBOX.")) {
		t.Errorf("%q", b)
	}
	var got []string
	rows := func(b []byte) error { got = append(got, string(b)); return nil }
	stream := "INFO {}\r\nMSG trades.C trades.C 3\r\na\r\n\r\nPING\r\nMSG _INBOX.x _INBOX.x 2\r\nbc\r\n"
	for cut := range len(stream) { // wherever messages begin and end
		got = nil
		var rest, answers []byte
		for _, part := range []string{stream[:cut], stream[cut:]} {
			answer, err := s.Read(&rest, []byte(part), rows)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, answer...)
		}
		if strings.Join(got, "|") != "a\r\n|bc" || string(answers) != "PONG\r\n" || len(rest) != 0 {
			t.Fatalf("cut at %d: %q, %q, rest %q", cut, got, answers, rest)
		}
	}
	for _, bad := range []string{"-ERR 'no'\r\n", "MSG a b x\r\n", "MSG a b -1\r\n", "MSG a b 99999999999\r\n"} {
		if _, err := s.Read(new([]byte), []byte(bad), rows); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// FuzzSpeakers: no bytes of a peer make a client panic.
func FuzzSpeakers(f *testing.F) {
	f.Add([]byte(`{"push":{"channel":"trades:A","pub":{"data":{"frame":1,"events":[]}}}}`), true, 5)
	f.Add([]byte("MSG trades.C trades.C 3\r\na\r\n\r\nPING\r\n"), false, 9)
	f.Fuzz(func(t *testing.T, b []byte, text bool, cut int) {
		s := speakNATS("")
		if text {
			s = speakCentrifuge("")
		}
		cut = max(0, min(cut, len(b)))
		var rest []byte
		rows := func(frame []byte) error {
			_, err := native.JSON.OpenFrame(frame)
			return err
		}
		for _, part := range [][]byte{b[:cut], b[cut:]} {
			if _, err := s.Read(&rest, part, rows); err != nil {
				return
			}
		}
	})
}
