package native_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestForeignDecoders: MessagePack libraries of other languages make of the
// golden frames, commands and records what is written beside them. They are run
// where they are installed: TICKGATE_PYTHON names a Python that has msgpack,
// NODE_PATH a folder that has @msgpack/msgpack, TICKGATE_CARGO a cargo that may
// fetch rmp-serde. With TICKGATE_REQUIRE_DECODERS=1 a missing one is a failure.
func TestForeignDecoders(t *testing.T) {
	python := os.Getenv("TICKGATE_PYTHON")
	if python == "" {
		python = "python3"
	}
	cargo := os.Getenv("TICKGATE_CARGO")
	if cargo == "" {
		cargo = "no-cargo" // building it fetches crates: only where it was asked for
	}
	for name, tt := range map[string]struct {
		probe, run []string
	}{
		"Python msgpack":              {[]string{python, "-c", "import msgpack"}, []string{python, "testdata/decode.py"}},
		"JavaScript @msgpack/msgpack": {[]string{"node", "-e", "require('@msgpack/msgpack')"}, []string{"node", "testdata/decode.cjs"}},
		"Rust rmp-serde":              {[]string{cargo, "--version"}, []string{cargo, "run", "--quiet", "--locked", "--manifest-path", "testdata/decode-rs/Cargo.toml", "--"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := exec.Command(tt.probe[0], tt.probe[1:]...).Run(); err != nil {
				if os.Getenv("TICKGATE_REQUIRE_DECODERS") == "1" {
					t.Fatalf("missing: %q says %v", tt.probe, err)
				}
				t.Skipf("not run: %q says %v", tt.probe, err)
			}
			cmd := exec.Command(tt.run[0], append(tt.run[1:], goldenPath, "../record/testdata/golden.json")...)
			cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}
