// Package page is the page at "/" of a gateway: twenty rows of text that move.
//
// It is plain HTML, CSS and JavaScript inside the binary; it loads nothing
// from anywhere else, and what it knows of prices it knows like any other
// client, over the WebSocket in protocol v1's JSON spelling. It holds no state
// and is safe for concurrent use.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// policy lets the page run its own script, use its own style and talk to the
// host it came from, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

type file struct {
	name string
	body []byte
	tag  string // of the body, so that a browser asks and is told "not modified"
}

// Handler serves the page and its parts; anything else is not found.
func Handler() http.Handler {
	files := map[string]file{}
	err := fs.WalkDir(static, "static", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := static.ReadFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		name := strings.TrimPrefix(path, "static")
		f := file{name: name, body: body, tag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
		files[name] = f
		if name == "/index.html" {
			files["/"] = f
		}
		return nil
	})
	if err != nil {
		panic("page: the embedded files cannot be read: " + err.Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.tag)
		http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.body))
	})
}
