package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tickgate/codec"
	"tickgate/gateway/shard"
	"tickgate/gateway/socket"
)

const (
	// headerBytesMax bounds a request's header: a browser with a few cookies
	// and a token needs less.
	headerBytesMax = 16 << 10

	// httpTime bounds a request that is no upgrade, and its answer.
	httpTime = 15 * time.Second

	// httpIdle bounds a kept connection between requests: the page's browser
	// asks once.
	httpIdle = 30 * time.Second

	// stopTime bounds what Run waits for requests that are being answered when
	// it stops. Sockets need up to 2 s: see socket.Close.
	stopTime = time.Second
)

// Server is one gateway. Its zero value is of no use; see [New].
type Server struct {
	options  Options
	listener net.Listener
	admin    net.Listener // nil if off
	upgrader *socket.Upgrader
	dialects map[string]codec.Dialect // by subprotocol; "" for none offered
	limiter  *limiter
	metrics  *metrics
	shards   []*shard.Shard

	stopping chan struct{} // closed when Run's context is done
	draining atomic.Bool
	next     atomic.Uint64 // shard for the next session

	mu       sync.Mutex
	sessions map[*session]struct{}
	ended    bool           // no session may begin
	clients  sync.WaitGroup // a session and the request it came from
}

// New binds the addresses, so that a taken port shows before anything runs,
// and what was bound is released by Run. An error about an address is a
// [*ListenError].
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	s := &Server{
		options:  o,
		dialects: map[string]codec.Dialect{},
		limiter:  newLimiter(o.Limits),
		stopping: make(chan struct{}),
		sessions: map[*session]struct{}{},
	}
	var names []string
	for _, d := range o.Dialects {
		s.dialects[d.Subprotocol()] = d
		names = append(names, d.Subprotocol())
	}
	s.dialects[""] = o.textDialect()
	var err error
	s.upgrader, err = socket.NewUpgrader(socket.Options{
		StallMax:          o.StallMax,
		MessageBytesMax:   o.Limits.MessageBytes,
		MessageTimeMax:    o.Limits.MessageTime,
		MessagesPerSecond: o.Limits.MessagesPerSecond,
		BytesPerSecond:    o.Limits.BytesPerSecond,
		ReadsPerSecond:    o.Limits.ReadsPerSecond,
		HandshakeTimeout:  o.Limits.HandshakeTime,
	}, names...)
	if err := errors.Join(o.validate(), err); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if s.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	for range o.Shards {
		sh, err := shard.New(o.Board, shard.Options{})
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		s.shards = append(s.shards, sh)
	}
	if err := s.registerStats(o.Registerer); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if s.listener = o.Listener; s.listener == nil {
		if s.listener, err = net.Listen("tcp", o.Listen); err != nil {
			return nil, &ListenError{"Listen", o.Listen, err}
		}
	}
	if o.Admin != AdminOff {
		if s.admin, err = net.Listen("tcp", o.Admin); err != nil {
			_ = s.listener.Close()
			return nil, &ListenError{"Admin", o.Admin, err}
		}
	}
	return s, nil
}

// Addr is where clients connect.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// AdminAddr is where metrics and health are; nil if off.
func (s *Server) AdminAddr() net.Addr {
	if s.admin == nil {
		return nil
	}
	return s.admin.Addr()
}

// Sessions is how many clients are connected.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Run serves until ctx is done, then drains: the node becomes unready, clients
// are told to go and are closed over DrainWindow, and Run returns when none is
// left, at most about 3 s after the window. Every goroutine that Run started
// has ended then. It is called once.
func (s *Server) Run(ctx context.Context) error {
	o := &s.options
	clients := &http.Server{
		Handler:           s.keepFew(s.handler()),
		ReadHeaderTimeout: o.Limits.HandshakeTime,
		ReadTimeout:       httpTime,
		WriteTimeout:      httpTime,
		IdleTimeout:       httpIdle,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          log.New(debugLog{o.Log}, "", 0),
	}
	listener := socket.NewListener(s.listener, o.TLS, func(a netip.Addr) (func(), bool) {
		done, limit := s.limiter.connect(a, s.stopping)
		if limit != "" {
			s.metrics.refused.WithLabelValues(limit).Inc()
		}
		return done, limit == ""
	})

	shardsCtx, stopShards := context.WithCancel(context.WithoutCancel(ctx))
	defer stopShards()
	var shards, servers sync.WaitGroup
	for _, sh := range s.shards {
		shards.Go(func() { sh.Run(shardsCtx) })
	}
	failed := make(chan error, 2)
	serve := func(hs *http.Server, l net.Listener) {
		if err := hs.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("gateway: serving %s: %w", l.Addr(), err)
		}
	}
	readCtx, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()
	var reading sync.WaitGroup
	reading.Go(func() { s.upgrader.Run(readCtx) })
	servers.Go(func() { serve(clients, listener) })
	var admin *http.Server
	if s.admin != nil {
		admin = &http.Server{
			Handler:           s.adminHandler(),
			ReadHeaderTimeout: o.Limits.HandshakeTime,
			IdleTimeout:       httpIdle,
			MaxHeaderBytes:    headerBytesMax,
			ErrorLog:          clients.ErrorLog,
		}
		servers.Go(func() { serve(admin, s.admin) })
	}

	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case err = <-failed:
	}
	close(s.stopping)
	s.end()
	stop := func(hs *http.Server) {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if hs.Shutdown(late) != nil {
			_ = hs.Close()
		}
	}
	stop(clients)
	s.clients.Wait()
	if admin != nil { // last, so that a drain can be watched
		stop(admin)
	}
	servers.Wait()
	stopReading()
	reading.Wait()
	stopShards()
	shards.Wait()
	return err
}

// debugLog takes net/http's log: broken handshakes and the like are the
// client's business.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(b []byte) (int, error) {
	d.log.Debug("http", "event", strings.TrimSpace(string(b)))
	return len(b), nil
}

// handler is what clients can ask for.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/ws", s.upgrade)
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, http.StatusNotFound, "there is no %s here; the WebSocket is at /v1/ws, with subprotocol %s",
			strconv.QuoteToASCII(r.URL.Path), s.subprotocols())
	})
	mux.Handle("/", s.options.Page)
	return mux
}

// keepFew has a connection closed after its answer, not kept for the next request,
// while places are getting few: kept ones hold theirs for up to httpIdle, and for
// good if they ask again.
func (s *Server) keepFew(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if remote, _ := netip.ParseAddrPort(r.RemoteAddr); s.limiter.few(remote.Addr()) {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

func (s *Server) subprotocols() string {
	var names []string
	for _, d := range s.options.Dialects {
		names = append(names, d.Subprotocol())
	}
	return strings.Join(names, " or ")
}

func (s *Server) answer(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, fmt.Sprintf(format, args...), status)
}

// adminHandler is what operators can ask for.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.options.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			s.answer(w, http.StatusServiceUnavailable, "draining")
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	if s.options.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// upgrade makes a session of a request.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		s.refuse(w, &refusal{limitDraining, http.StatusServiceUnavailable, retryFull, "this node is leaving; another one will serve you"})
		return
	}
	handedOver := false
	defer func() {
		if !handedOver {
			s.clients.Done()
		}
	}()
	subprotocol, err := s.upgrader.Subprotocol(r)
	if err != nil {
		var re *socket.RequestError
		if !errors.As(err, &re) {
			re = &socket.RequestError{Status: http.StatusInternalServerError, Text: err.Error()}
		}
		for name, values := range re.Header {
			w.Header()[name] = values
		}
		s.metrics.requests.WithLabelValues(strconv.Itoa(re.Status)).Inc()
		s.answer(w, re.Status, "%s", re.Text)
		return
	}
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	done, no := s.limiter.upgrade(remote.Addr())
	if no != nil {
		s.refuse(w, no)
		return
	}
	dialect := s.dialects[subprotocol]
	so, err := s.upgrader.Upgrade(w, r, subprotocol, dialect.Text())
	if err != nil {
		done()
		s.options.Log.Debug("upgrade failed", "client", remote, "error", err)
		return
	}
	handedOver = true
	s.serve(so, dialect, func() {
		done()
		s.clients.Done()
	})
}

// begin admits a request to become a session, unless the server is leaving.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.draining.Load() {
		return false
	}
	s.clients.Add(1)
	return true
}

func (s *Server) refuse(w http.ResponseWriter, no *refusal) {
	s.metrics.refused.WithLabelValues(no.limit).Inc()
	retry := no.retry + rand.N(no.retry) // so that the refused do not come back together
	w.Header().Set("Retry-After", strconv.Itoa(int(retry/time.Second)))
	s.answer(w, no.status, "%s; try again in %d s", no.text, int(retry/time.Second))
}

// drain tells the clients to go, and closes those who do not, spread over the
// window.
func (s *Server) drain() {
	s.draining.Store(true)
	s.metrics.draining.Set(1)
	window := s.options.DrainWindow
	leaving := s.snapshot()
	if len(leaving) > 0 {
		s.options.Log.Info("draining", "clients", len(leaving), "window", window)
	}
	if window == 0 {
		return
	}
	for _, sh := range s.shards {
		sh.BeginDrain(window)
	}
	rand.Shuffle(len(leaving), func(i, j int) { leaving[i], leaving[j] = leaving[j], leaving[i] })
	began := time.Now()
	for i, se := range leaving {
		due := began.Add(window * time.Duration(i+1) / time.Duration(len(leaving)+1))
		for s.Sessions() > 0 && time.Now().Before(due) {
			time.Sleep(min(time.Until(due), drainPoll))
		}
		se.close(codec.CloseDraining)
	}
}

// drainPoll is how often a drain looks whether all have gone by themselves.
const drainPoll = 100 * time.Millisecond

// end closes all sessions; none begins after it.
func (s *Server) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	for _, se := range s.snapshot() {
		se.close(codec.CloseDraining)
	}
}

func (s *Server) snapshot() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 0, len(s.sessions))
	for se := range s.sessions {
		all = append(all, se)
	}
	return all
}
