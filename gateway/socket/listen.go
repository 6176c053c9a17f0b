package socket

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// Admit decides on a connection that has just been accepted, and may wait: the
// next ones wait in the kernel. If ok, release is called once, when the
// connection has been upgraded or closed.
type Admit func(client netip.Addr) (release func(), ok bool)

// Listener accepts the connections that an [Upgrader] can take over.
type Listener struct {
	net.Listener
	tls   *tls.Config
	admit Admit
}

// NewListener wraps a TCP listener. Without a tls.Config connections are
// plain; admit may be nil.
func NewListener(l net.Listener, c *tls.Config, admit Admit) *Listener {
	return &Listener{Listener: l, tls: c, admit: admit}
}

// Accept waits for the next connection that is admitted.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			return nil, fmt.Errorf("socket: %T is no TCP connection", c)
		}
		var release func()
		if l.admit != nil {
			addr, _ := netip.ParseAddrPort(tcp.RemoteAddr().String())
			if release, ok = l.admit(addr.Addr().Unmap()); !ok {
				_ = tcp.Close()
				continue
			}
		}
		w, err := newWire(tcp)
		if err != nil { // it is gone already
			_ = tcp.Close()
			if release != nil {
				release()
			}
			continue
		}
		w.released = release
		if l.tls != nil {
			return tls.Server(w, l.tls), nil
		}
		return w, nil
	}
}

// Certificates is a certificate and its key in two files, read again when one
// of them has changed.
type Certificates struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]fileStamp
	looked  time.Time
}

// fileStamp tells whether a file has changed.
type fileStamp struct {
	modified time.Time
	size     int64
}

// lookEvery bounds how often the files are looked at: handshakes come by the
// thousand.
const lookEvery = time.Second

// LoadCertificates reads the files.
func LoadCertificates(certFile, keyFile string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if c.stamp, err = c.stamps(); err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	if c.current, err = c.load(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

func (c *Certificates) stamps() (s [2]fileStamp, err error) {
	for i, name := range [2]string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (c *Certificates) load() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("TLS certificate %s: %w", c.certFile, err)
		}
	}
	if now := time.Now(); now.After(cert.Leaf.NotAfter) || now.Before(cert.Leaf.NotBefore) {
		c.log.Error("the TLS certificate is not valid now: clients will refuse it; put a valid one there, it is read again",
			"file", c.certFile, "notBefore", cert.Leaf.NotBefore, "notAfter", cert.Leaf.NotAfter)
	}
	return &cert, nil
}

// Get is for tls.Config.GetCertificate. Files that cannot be read or do not
// match, as in the middle of a change, leave the certificate as it was.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		if err := c.lookLocked(); err != nil {
			c.log.Warn("TLS certificate not read again; the old one stays in use", "error", err)
		}
	}
	return c.current, nil
}

func (c *Certificates) lookLocked() error {
	stamp, err := c.stamps()
	if err != nil {
		return err
	}
	if stamp == c.stamp {
		return nil
	}
	cert, err := c.load()
	if err != nil {
		return err
	}
	c.current, c.stamp = cert, stamp
	c.log.Info("TLS certificate read again", "file", c.certFile, "notAfter", cert.Leaf.NotAfter)
	return nil
}

// TLSConfig is what a [Listener] needs: HTTP/1.1 only, since a WebSocket is
// upgraded from it, and full records, since small ones cost a system call and
// 22 bytes each.
func TLSConfig(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*tls.Config, error) {
	if get == nil {
		return nil, errors.New("socket: TLS needs a certificate")
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  []string{"http/1.1"},
		GetCertificate:              get,
		DynamicRecordSizingDisabled: true,
	}, nil
}
