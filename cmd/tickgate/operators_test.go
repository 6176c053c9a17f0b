package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var (
	metricName  = regexp.MustCompile(`\b(?:tickgate|process)_[a-z_]+\b`)
	metricLabel = regexp.MustCompile(`(tickgate_[a-z_]+)\{([a-z]+)(!?=)"([^"]*)"`)
)

// TestOperatorsFiles: what the alert rules, the dashboard and the README's table
// for operators look at is what a running house exports, under that name and with
// that label. An alert on a name that nobody exports never rings.
func TestOperatorsFiles(t *testing.T) {
	dev := start(t, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0")
	ws := dev.await(within, `websocket\s+(ws://\S+)`)[1]
	metrics := dev.await(within, `http://\S+/metrics`)[0]
	tail := start(t, "tail", "--json", "--url", ws, "*")
	tail.await(within, `"symbol"`)

	var exprs []string
	root := filepath.Join("..", "..")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(read("deployments/alerts.yaml"), &rules); err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%+v: want a name, a severity, a summary and a description", r)
			}
			exprs = append(exprs, r.Expr)
		}
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(read("deployments/dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	for _, line := range strings.Split(string(read("README.md")), "\n") {
		exprs = append(exprs, metricName.FindAllString(line, -1)...)
	}
	if len(exprs) < 30 {
		t.Fatalf("%d expressions, want more", len(exprs))
	}

	eventually(t, "all that is looked at", func() error {
		text := get(t, metrics)
		exported := map[string]bool{}
		for _, line := range strings.Split(text, "\n") {
			exported[metricName.FindString(line)] = !strings.HasPrefix(line, "#") || exported[metricName.FindString(line)]
		}
		var missing []string
		for _, e := range exprs {
			for _, name := range metricName.FindAllString(e, -1) {
				if !exported[name] && !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
			}
			for _, m := range metricLabel.FindAllStringSubmatch(e, -1) {
				if m[2] == "instance" { // Prometheus gives it
					continue
				}
				if want := fmt.Sprintf(`%s{%s="%s"`, m[1], m[2], m[4]); !strings.Contains(text, want) {
					missing = append(missing, want)
				}
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("not exported: %s", strings.Join(missing, ", "))
		}
		return nil
	})
}
