package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// deafClients never read a byte after the handshake.
const deafClients = 1000

// deafGrowthMax is what the gateway's memory may grow while they do not read.
// Were updates queued for them, it would be 500 ticks/s x 50 bytes x 1,000
// clients: 25 MB each second.
const deafGrowthMax = 32 << 20

// TestDeafClientsCostNoMemory connects a thousand clients that subscribe to
// everything, unconflated, and never read: the gateway's memory is flat.
func TestDeafClientsCostNoMemory(t *testing.T) {
	dev := start(t, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0")
	kafka := dev.await(within, `broker\s+(127\.0\.0\.1:\d+)`)[1]
	gw := start(t, "serve", "--brokers", kafka, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	at := gw.await(within, `ws://\S+/v1/ws`)[0]
	metrics := gw.await(within, `http://\S+/metrics`)[0]
	eventually(t, "the gateway follows the market", func() error {
		if n := metric(t, metrics, "tickgate_follow_records_total"); n < 1000 {
			return fmt.Errorf("%v records", n)
		}
		return nil
	})
	for i := range deafClients {
		conn := handshake(t, at)
		defer conn.Close()
		if _, err := conn.Write(maskedText(`{"op":"subscribe","ref":1,"channel":"trades","symbols":["*"],"every":0}`)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		if _, err := conn.Write(maskedText(`{"op":"subscribe","ref":2,"channel":"ticker","symbols":["*"],"every":0}`)); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	time.Sleep(4 * time.Second) // their kernel buffers fill
	before := residentBytes(t, gw.cmd.Process.Pid)
	time.Sleep(8 * time.Second)
	after := residentBytes(t, gw.cmd.Process.Pid)
	t.Logf("resident: %.1f MB, 8 s later %.1f MB", float64(before)/1e6, float64(after)/1e6)
	if after > before+deafGrowthMax {
		t.Errorf("resident memory grew from %d to %d bytes while %d clients did not read", before, after, deafClients)
	}

	// And somebody who reads is served as if they were not there.
	tail := start(t, "tail", "--url", at, "--json", "--every", "0", "BTCUSDT")
	eventually(t, "a reading client is served", func() error {
		if n := len(tail.stdout()); n < 10 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
}

// handshake opens a WebSocket connection by hand.
func handshake(t *testing.T, at string) net.Conn {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(within))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: tickgate.v1.json\r\n\r\n", u.Path, u.Host)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %+v, %v", res, err)
	}
	return conn
}

// maskedText is a client's text frame.
func maskedText(s string) []byte {
	b := []byte{0x81}
	if len(s) < 126 {
		b = append(b, 0x80|byte(len(s)))
	} else {
		b = append(b, 0x80|126)
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	}
	return append(append(b, 0, 0, 0, 0), s...)
}

func residentBytes(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("resident memory cannot be read here: %v", err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// metric reads one sample without labels.
func metric(t *testing.T, url, name string) float64 {
	t.Helper()
	for text := range strings.SplitSeq(get(t, url), "\n") {
		if v, ok := strings.CutPrefix(text, name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			return f
		}
	}
	return 0
}
