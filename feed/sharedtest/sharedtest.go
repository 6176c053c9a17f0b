// Package sharedtest finds the recorded data that lies beside the checkout and
// is no part of the product: tests that need it skip where it is missing.
package sharedtest

import (
	"os"
	"path/filepath"
	"testing"
)

// Path is the path of a file of ../shared. Where it is missing the test is
// skipped, or failed if TICKGATE_REQUIRE_SHARED is 1.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	root := os.Getenv("TICKGATE_SHARED")
	if root == "" {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				break
			}
			if filepath.Dir(dir) == dir {
				t.Fatal("no go.mod above the working directory")
			}
			dir = filepath.Dir(dir)
		}
		root = filepath.Join(filepath.Dir(dir), "shared")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("TICKGATE_REQUIRE_SHARED") == "1" {
			t.Fatalf("recorded data is missing, and TICKGATE_REQUIRE_SHARED is 1: %v", err)
		}
		t.Skipf("recorded data is missing: %v", err)
	}
	return path
}
