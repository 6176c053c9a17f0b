package socket

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// BenchmarkWriteFrame: a frame to a client that reads, and for comparison the
// write(2) alone that it comes down to.
func BenchmarkWriteFrame(b *testing.B) {
	for _, n := range []int{100, 1000, 8000} {
		for _, way := range []string{"write2", "plain", "tls"} {
			b.Run(fmt.Sprintf("%s/bytes=%d", way, n), func(b *testing.B) {
				s := serve(b, way == "tls", Options{}, nil)
				p, so := s.dial(b, 0)
				_ = p.tcp.SetDeadline(time.Time{})
				done := make(chan struct{})
				go func() { // reads and acknowledges all
					defer close(done)
					scrap := make([]byte, 64<<10)
					for {
						if _, err := p.conn.Read(scrap); err != nil {
							return
						}
						so.Acked(so.Stats().Frames)
					}
				}()
				frame := payload(1, n)
				b.ReportAllocs()
				b.SetBytes(int64(n))
				busy := 0
				for b.Loop() {
					for !so.Ready() {
						busy++
						time.Sleep(20 * time.Microsecond)
						_, _ = so.Flush()
					}
					if way == "write2" {
						_ = so.wire.raw.Write(func(fd uintptr) bool {
							_, _ = syscall.Write(int(fd), frame)
							return true
						})
						continue
					}
					if _, err := so.WriteFrame(frame); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(busy)/float64(b.N), "waits/op")
				_ = p.tcp.Close()
				<-done
			})
		}
	}
}
