package native_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestForeignDecoders: MessagePack libraries of other languages make of the
// golden messages what is written beside them. They are run where they are
// installed: TICKGATE_PYTHON names a Python that has msgpack, NODE_PATH a folder
// that has @msgpack/msgpack.
func TestForeignDecoders(t *testing.T) {
	python := os.Getenv("TICKGATE_PYTHON")
	if python == "" {
		python = "python3"
	}
	for name, tt := range map[string]struct {
		probe, run []string
	}{
		"Python msgpack":              {[]string{python, "-c", "import msgpack"}, []string{python, "testdata/decode.py", goldenPath}},
		"JavaScript @msgpack/msgpack": {[]string{"node", "-e", "require('@msgpack/msgpack')"}, []string{"node", "testdata/decode.cjs", goldenPath}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := exec.Command(tt.probe[0], tt.probe[1:]...).Run(); err != nil {
				t.Skipf("not run: %q says %v", tt.probe, err)
			}
			if out, err := exec.Command(tt.run[0], tt.run[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
