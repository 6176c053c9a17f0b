package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// allowed is the way through the house: what a package (or a folder of
// packages, its longest prefix counts) may import of ours, itself and what
// lies in its own folder apart. An import that is not here points the wrong way.
var allowed = map[string][]string{
	"codec":           {},
	"codec/record":    {"codec"},
	"codec/native":    {"codec", "codec/codectest"},
	"codec/codectest": {"codec"},

	"feed":            {"codec", "codec/record", "feed/venue"},
	"feed/venue":      {"codec", "feed/sharedtest"},
	"feed/sharedtest": {},
	"feed/broker":     {"feed", "feed/venue", "codec", "codec/record", "feed/embedded"},
	"feed/embedded":   {"feed", "feed/broker"}, // in its tests
	"feed/follow":     {"codec", "codec/record", "feed", "feed/broker", "feed/embedded", "feed/venue"},
	"feed/market":     {"codec", "feed", "feed/venue"},
	"feed/replay":     {"codec", "feed", "feed/venue", "feed/sharedtest"},

	"gateway":        {"codec", "codec/record", "codec/native", "gateway/board", "gateway/shard", "gateway/socket", "gateway/page", "gateway/client"},
	"gateway/board":  {"codec", "codec/record"},
	"gateway/shard":  {"codec", "codec/record", "codec/native", "gateway/board", "gateway/socket"},
	"gateway/socket": {"codec"},
	"gateway/inlet":  {"codec", "codec/record", "gateway/board", "gateway/socket"},
	"gateway/client": {"codec", "codec/record", "codec/native"},
	"gateway/page":   {"codec", "gateway", "gateway/board", "codec/record", "codec/native"},

	"bench": {"codec", "codec/record", "codec/native", "gateway/client"},
	"cmd":   {"codec", "feed", "gateway", "bench"},
}

// outside are the libraries that one package wraps for all others.
var outside = map[string][]string{
	"github.com/segmentio/kafka-go":  {"feed/broker"},
	"github.com/twmb/franz-go":       {"feed/embedded"},
	"github.com/lxzan/gws":           {"gateway", "gateway/socket", "gateway/client"},
	"github.com/knadh/koanf":         {"cmd/tickgate", "cmd/tickbench"},
	"github.com/spf13":               {"cmd/tickgate", "cmd/tickbench"},
	"github.com/vmihailenco/msgpack": {"codec", "codec/record", "codec/native", "codec/codectest"},
}

func TestImportsPointOneWay(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == filepath.Join("bench", "peers")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		isTest := strings.HasSuffix(path, "_test.go")
		for _, imp := range file.Imports {
			seen++
			name, _ := strconv.Unquote(imp.Path.Value)
			if ours, ok := strings.CutPrefix(name, "tickgate/"); ok {
				if fault := misdirected(pkg, ours); fault != "" {
					t.Errorf("%s imports %s: %s", rel, ours, fault)
				}
			}
			if isTest {
				continue
			}
			for lib, wrappers := range outside {
				if strings.HasPrefix(name, lib) && !slices.Contains(wrappers, pkg) {
					t.Errorf("%s imports %s: only %s may", rel, name, strings.Join(wrappers, ", "))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("read %d imports: the test no longer sees the house", seen)
	}
}

// misdirected says what is wrong with pkg importing ours, "" if nothing.
func misdirected(pkg, ours string) string {
	rule := pkg
	for {
		if _, ok := allowed[rule]; ok {
			break
		}
		i := strings.LastIndexByte(rule, '/')
		if i < 0 {
			return "no rule for package " + pkg + ": add where it stands"
		}
		rule = rule[:i]
	}
	if strings.HasPrefix(pkg, "feed") && strings.HasPrefix(ours, "gateway") || strings.HasPrefix(pkg, "gateway") && strings.HasPrefix(ours, "feed") {
		return "feed and gateway do not know each other"
	}
	if rule != "cmd" && (ours == rule || strings.HasPrefix(ours, rule+"/") && strings.Contains(rule, "/")) {
		return ""
	}
	for _, a := range allowed[rule] {
		if ours == a || rule == "cmd" && strings.HasPrefix(ours, a+"/") {
			return ""
		}
	}
	return "not the way through the house"
}

func TestMisdirected(t *testing.T) {
	for _, tt := range []struct {
		pkg, ours string
		ok        bool
	}{
		{"gateway/shard", "gateway/board", true},
		{"gateway/board", "gateway/shard", false},
		{"codec", "feed", false},
		{"feed/follow", "gateway/board", false},
		{"gateway", "feed", false},
		{"cmd/tickgate", "feed/broker", true},
		{"feed/venue/scan", "codec", true},
		{"bench", "gateway/board", false},
	} {
		if got := misdirected(tt.pkg, tt.ours) == ""; got != tt.ok {
			t.Errorf("misdirected(%q, %q): allowed %v, want %v", tt.pkg, tt.ours, got, tt.ok)
		}
	}
}
