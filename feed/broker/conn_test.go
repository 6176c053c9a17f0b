package broker

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
)

// A broker that goes away in an exchange is named.
func TestLostBrokerIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k := &conn{Conn: protocol.NewConn(raw, "test"), timeout: 5 * time.Second, clientID: "test"}
	go func() {
		_, _ = peer.Read(make([]byte, 1024))
		_ = peer.Close()
	}()
	_, err = k.exchange(t.Context(), k.begin(protocol.Fetch), 0)
	if !errors.Is(err, io.EOF) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("exchange = %v, want an EOF that names %v", err, l.Addr())
	}
}
