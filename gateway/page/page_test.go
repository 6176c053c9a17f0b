package page

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	h := Handler()
	for name, tt := range map[string]struct {
		method, path string
		status       int
		contentType  string
	}{
		"page":        {"GET", "/", 200, "text/html; charset=utf-8"},
		"head":        {"HEAD", "/", 200, "text/html; charset=utf-8"},
		"script":      {"GET", "/page.js", 200, "text/javascript; charset=utf-8"},
		"style":       {"GET", "/page.css", 200, "text/css; charset=utf-8"},
		"icon":        {"GET", "/favicon.svg", 200, "image/svg+xml"},
		"no such":     {"GET", "/nothing", 404, ""},
		"out of here": {"GET", "/../page.go", 404, ""},
		"post":        {"POST", "/", 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(tt.method, "http://x/", nil)
			r.URL.Path = tt.path
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Fatalf("%s %s = %d, want %d", tt.method, tt.path, w.Code, tt.status)
			}
			if tt.status != 200 {
				return
			}
			if got := w.Header().Get("Content-Type"); got != tt.contentType {
				t.Errorf("Content-Type %q, want %q", got, tt.contentType)
			}
			if w.Header().Get("Content-Security-Policy") != policy {
				t.Error("no Content-Security-Policy")
			}
			again := httptest.NewRequest(tt.method, tt.path, nil)
			again.Header.Set("If-None-Match", w.Header().Get("ETag"))
			w = httptest.NewRecorder()
			if h.ServeHTTP(w, again); w.Code != http.StatusNotModified {
				t.Errorf("asked again with its ETag: %d, want 304", w.Code)
			}
		})
	}
}

// Nothing in the page comes from another host, and nothing needs what its own
// policy forbids.
func TestPageIsSelfContained(t *testing.T) {
	for _, name := range []string{"index.html", "page.js", "page.css"} {
		b, err := static.ReadFile("static/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?i)https?://[^\s"']+|@import|\son\w+=|style=|eval\(|innerHTML`).FindAllString(string(b), -1) {
			t.Errorf("%s has %q", name, found)
		}
		if strings.Contains(string(b), "<script>") || strings.Contains(string(b), "<style>") {
			t.Errorf("%s has an inline script or style", name)
		}
	}
}
