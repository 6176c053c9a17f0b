package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"tickgate/codec"
	"tickgate/codec/native"
)

// Peers are the servers of bench/peers, by the name of the target: what others
// would build with a well-known library, fed and read as tickgate is. None of
// them conflates.
var Peers = map[string]func(binary string) *Target{
	"gws": func(binary string) *Target {
		return peer(binary, "gws", []string{"gws"}, []string{"patterns"}, "/v1/ws", Native, false)
	},
	"centrifuge": func(binary string) *Target {
		return peer(binary, "centrifuge", []string{"centrifuge"}, nil, "/connection/websocket", speakCentrifuge, false)
	},
	"centrifuge-batched": func(binary string) *Target {
		return peer(binary, "centrifuge-batched", []string{"centrifuge", "--batch", "10ms"}, []string{"batching"}, "/connection/websocket", speakCentrifuge, false)
	},
	"nats": func(binary string) *Target {
		return peer(binary, "nats", []string{"nats"}, nil, "/", speakNATS, true)
	},
}

func peer(binary, name string, args, has []string, path string, speak func(string) Speaker, early bool) *Target {
	return &Target{Name: name, Has: has, Start: func(ctx context.Context, o *StartOptions) (*Instance, error) {
		in := &Instance{Inlet: filepath.Join(o.Dir, "inlet")}
		argv := append([]string{binary}, args...)
		argv = append(argv, "--listen", "127.0.0.1:0", "--inlet", "unix:"+in.Inlet)
		if name == "nats" && o.Scenario.wants("ticker") {
			argv = append(argv, "--ticker")
		}
		p, got, err := StartProcess(ctx, GatewayProcess, o.Cores, argv, nil, `^listening (\S+)`)
		if err != nil {
			return nil, err
		}
		in.Add(p)
		addr, err := netip.ParseAddrPort(got[0])
		if err != nil {
			_ = in.Close()
			return nil, err
		}
		in.Endpoint = Endpoint{Addr: addr, Path: path, Speak: speak, Early: early}
		return in, nil
	}}
}

// wants tells whether a group follows a channel.
func (s *Scenario) wants(channel string) bool {
	for i := range s.Clients {
		if s.Clients[i].Channel == channel {
			return true
		}
	}
	return false
}

// centrifugeSpeaker is Centrifuge's JSON protocol: objects, one a line, whose
// data is a frame in JSON.
//
// Source: https://centrifugal.dev/docs/transports/client_protocol
type centrifugeSpeaker struct{}

func speakCentrifuge(string) Speaker { return centrifugeSpeaker{} }

func (centrifugeSpeaker) Subprotocol() string       { return "" }
func (centrifugeSpeaker) Hello() []byte             { return []byte(`{"id":1,"connect":{}}`) }
func (centrifugeSpeaker) Text() bool                { return true }
func (centrifugeSpeaker) Spelling() native.Spelling { return native.JSON }

func (centrifugeSpeaker) Command(dst []byte, c *codec.Command) []byte {
	verb := c.Op.String()
	if c.Op != codec.OpSubscribe && c.Op != codec.OpUnsubscribe {
		return nil
	}
	i, n := uint64(0), c.Symbols.Len()
	for it := range c.Symbols.All() {
		if i > 0 {
			dst = append(dst, '\n')
		}
		i++
		dst = append(dst, `{"id":`...)
		dst = codec.AppendUint(dst, c.Ref<<16+i+1) // 1 is the connect
		dst = append(dst, `,"`+verb+`":{"channel":"`+c.Channel.String()+`:`...)
		dst = append(append(dst, it.Name...), '"')
		if c.Op == codec.OpSubscribe && int(i) == n { // our server ends the answer with snapshot_end then
			dst = codec.AppendUint(append(dst, `,"data":{"ref":`...), c.Ref)
			dst = append(dst, '}')
		}
		dst = append(dst, '}', '}')
	}
	return dst
}

func (centrifugeSpeaker) Read(_ *[]byte, msg []byte, rows func([]byte) error) (answer []byte, err error) {
	for line := range bytes.SplitSeq(msg, []byte{'\n'}) {
		const push, data, end = `{"push":{"channel":"`, `","pub":{"data":`, `}}}`
		if bytes.HasPrefix(line, []byte(push)) && bytes.HasSuffix(line, []byte(end)) {
			if at := bytes.Index(line, []byte(data)); at > 0 {
				if err := rows(line[at+len(data) : len(line)-len(end)]); err != nil {
					return nil, err
				}
				continue
			}
		}
		if len(line) == 0 {
			continue
		}
		if string(line) == "{}" {
			answer = []byte("{}")
			continue
		}
		var reply struct {
			Error     *struct{ Message string }
			Subscribe *struct{ Data json.RawMessage }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return nil, fmt.Errorf("%.60q: %w", line, err)
		}
		switch {
		case reply.Error != nil:
			return nil, fmt.Errorf("centrifuge: %s", reply.Error.Message)
		case reply.Subscribe != nil && len(reply.Subscribe.Data) > 0:
			if err := rows(reply.Subscribe.Data); err != nil {
				return nil, err
			}
		}
	}
	return answer, nil
}

// natsSpeaker is the protocol of NATS, whose payloads are frames in MessagePack.
// A snapshot is asked for behind the subscription, on an inbox.
//
// Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
type natsSpeaker struct{}

func speakNATS(string) Speaker { return natsSpeaker{} }

func (natsSpeaker) Subprotocol() string { return "" }
func (natsSpeaker) Hello() []byte {
	return []byte(`CONNECT {"verbose":false,"pedantic":false,"headers":false,"no_responders":false}` + "\r\n")
}
func (natsSpeaker) Text() bool                { return false }
func (natsSpeaker) Spelling() native.Spelling { return native.MsgPack }

func (natsSpeaker) Command(dst []byte, c *codec.Command) []byte {
	if c.Op != codec.OpSubscribe && c.Op != codec.OpUnsubscribe {
		return nil
	}
	for it := range c.Symbols.All() {
		subject := c.Channel.String() + "." + strings.ReplaceAll(string(it.Name), ".", "_")
		if c.Op == codec.OpUnsubscribe {
			dst = append(dst, "UNSUB "+subject+"\r\n"...)
			continue
		}
		dst = append(dst, "SUB "+subject+" "+subject+"\r\n"...)
	}
	if c.Op == codec.OpUnsubscribe {
		return dst
	}
	inbox := "_INBOX." + strconv.FormatUint(rand.Uint64(), 36)
	ask := native.MsgPack.AppendCommand(nil, c)
	dst = append(dst, "SUB "+inbox+" "+inbox+"\r\nPUB snapshot "+inbox+" "+strconv.Itoa(len(ask))+"\r\n"...)
	return append(append(dst, ask...), "\r\n"...)
}

func (natsSpeaker) Read(rest *[]byte, msg []byte, rows func([]byte) error) (answer []byte, err error) {
	if len(*rest) > 0 {
		msg = append(*rest, msg...)
	}
	at := 0
	for {
		n := bytes.Index(msg[at:], []byte("\r\n"))
		if n < 0 {
			break
		}
		line := msg[at : at+n]
		next := at + n + 2
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")):
			size, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ' ')+1:]))
			if err != nil || size < 0 || size > messageMax {
				return nil, fmt.Errorf("nats: %.60q", line)
			}
			if len(msg)-next < size+2 { // not whole yet
				*rest = append((*rest)[:0], msg[at:]...)
				return answer, nil
			}
			if err := rows(msg[next : next+size]); err != nil {
				return nil, err
			}
			next += size + 2
		case string(line) == "PING":
			answer = append(answer, "PONG\r\n"...)
		case bytes.HasPrefix(line, []byte("-ERR")):
			return nil, fmt.Errorf("nats: %.100s", line)
		}
		at = next
	}
	*rest = append((*rest)[:0], msg[at:]...)
	return answer, nil
}
