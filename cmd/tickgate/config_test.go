package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// settingsCommand is a root with one command that has a few settings.
func settingsCommand() (cmd *cobra.Command, listen *string, brokers *[]string, max *int) {
	root := &cobra.Command{Use: "tickgate"}
	cmd = &cobra.Command{Use: "serve", Run: func(*cobra.Command, []string) {}}
	listen = cmd.Flags().String("listen", "default", "")
	brokers = cmd.Flags().StringSlice("brokers", nil, "")
	max = cmd.Flags().Int("clients-max", 1, "")
	root.AddCommand(cmd)
	return cmd, listen, brokers, max
}

func TestSettings(t *testing.T) {
	for name, tt := range map[string]struct {
		file        string
		environ     []string
		args        []string
		wantListen  string
		wantBrokers string
		wantMax     int
		wantErr     []string // parts of the error
	}{
		"defaults":                     {wantListen: "default", wantMax: 1},
		"file":                         {file: "listen: f\nbrokers: [a:1, b:2]\n", wantListen: "f", wantBrokers: "a:1,b:2", wantMax: 1},
		"file, nested":                 {file: "clients:\n  max: 7\n", wantListen: "default", wantMax: 7},
		"environment wins":             {file: "listen: f\n", environ: []string{"TICKGATE_LISTEN=e", "TICKGATE_CLIENTS_MAX=3"}, wantListen: "e", wantMax: 3},
		"environment wins over nested": {file: "clients:\n  max: 7\n", environ: []string{"TICKGATE_CLIENTS_MAX=3"}, wantListen: "default", wantMax: 3},
		"twice in file":                {file: "clients-max: 1\nclients:\n  max: 7\n", wantErr: []string{"settings file", "clients-max", "twice"}},
		"command line wins":            {file: "listen: f\n", environ: []string{"TICKGATE_LISTEN=e"}, args: []string{"--listen", "c"}, wantListen: "c", wantMax: 1},
		"list in environment":          {environ: []string{"TICKGATE_BROKERS=a:1,b:2"}, wantListen: "default", wantBrokers: "a:1,b:2", wantMax: 1},
		"tests' own variables":         {environ: []string{"TICKGATE_REQUIRE_SHARED=1"}, wantListen: "default", wantMax: 1},
		"unknown in file":              {file: "listn: f\n", wantErr: []string{"listn", "listen"}},
		"bad value in file":            {file: "clients-max: many\n", wantErr: []string{"settings file", "clients-max", "many"}},
		"bad value in environment": {environ: []string{"TICKGATE_CLIENTS_MAX=many"},
			wantErr: []string{"TICKGATE_CLIENTS_MAX", "many"}},
		"bad value in both": {file: "clients-max: 1\n", environ: []string{"TICKGATE_CLIENTS_MAX=many"},
			wantErr: []string{"environment variable TICKGATE_CLIENTS_MAX", "many"}},
		"broken file": {file: "listen: [\n", wantErr: []string{"settings file"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := ""
			if tt.file != "" {
				path = filepath.Join(t.TempDir(), "tickgate.yaml")
				if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd, listen, brokers, max := settingsCommand()
			if err := cmd.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			err := settings(cmd, path, tt.environ)
			if tt.wantErr != nil {
				for _, part := range tt.wantErr {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("error %v does not say %q", err, part)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if *listen != tt.wantListen || strings.Join(*brokers, ",") != tt.wantBrokers || *max != tt.wantMax {
				t.Errorf("listen %q, brokers %q, clients-max %d; want %q, %q, %d", *listen, *brokers, *max, tt.wantListen, tt.wantBrokers, tt.wantMax)
			}
		})
	}
}

func TestMissingSettingsFile(t *testing.T) {
	cmd, _, _, _ := settingsCommand()
	if err := settings(cmd, filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("error %v does not name the file", err)
	}
}

// What is typed wrongly ends with 2 and says what, before anything starts.
func TestUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"unknown command":                    {[]string{"nope"}, []string{`unknown command "nope"`}},
		"more memory than there is":          {[]string{"serve", "--ring-memory", "17592186044417"}, []string{"--ring-memory 17592186044417", "at most"}},
		"Kafka user, no mechanism":           {[]string{"feed", "--kafka-user", "u", "--kafka-password", "p"}, []string{"--kafka-user", "--kafka-sasl"}},
		"Kafka mechanism, no user":           {[]string{"serve", "--kafka-sasl", "plain"}, []string{"--kafka-sasl plain", "--kafka-user"}},
		"Kafka key, no certificate":          {[]string{"serve", "--kafka-tls-key", "k"}, []string{"--kafka-tls-cert", "--kafka-tls-key"}},
		"Kafka server name, no TLS":          {[]string{"serve", "--kafka-tls-server-name", "n"}, []string{"--kafka-tls-server-name", "--kafka-tls:"}},
		"certificate, no key":                {[]string{"serve", "--tls-cert", "c.pem"}, []string{"--tls-cert", "--tls-key", "both"}},
		"more replicas than Kafka can count": {[]string{"feed", "--replication", "65537"}, []string{"--replication 65537", "32767"}},
		"retention of less than nothing":     {[]string{"feed", "--state-bytes", "-5"}, []string{"--state-bytes -5"}},
		"limits": {[]string{"serve", "--listen", "127.0.0.1:0", "--clients-max", "-5", "--symbols-per-client", "-2", "--stall-max", "1ms", "--drain-window", "1h"},
			[]string{"--clients-max -5", "--symbols-per-client -2", "--stall-max 1ms: want 1s to 10m", "--drain-window 1h"}},
		"an argument too many": {[]string{"serve", "extra"}, []string{"tickgate serve", `"extra"`}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(context.Background(), tt.args, &stdout, &stderr); code != 2 {
				t.Errorf("exit %d, want 2", code)
			}
			for _, part := range tt.want {
				if !strings.Contains(stderr.String(), part) {
					t.Errorf("stderr %q does not say %q", &stderr, part)
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("it had begun: %s", &stdout)
			}
		})
	}
}

// Ctrl-C before dev has its topics is an end like any other.
func TestDevInterruptedAtOnce(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"dev", "--listen", "127.0.0.1:0", "--admin", "off", "--broker-listen", "127.0.0.1:0"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit %d, want 0; stderr:\n%s", code, &stderr)
	}
}

func TestFeedAdminOff(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"feed", "--admin", "off", "--brokers", "127.0.0.1:1"}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "no metrics") {
		t.Errorf("exit %d, want 0; stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

// A duration in the log has its unit, in JSON too.
func TestLogDurations(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("x", "after", 16251*time.Millisecond)
		if !strings.Contains(out.String(), "16.251s") {
			t.Errorf("%s: %s", format, &out)
		}
	}
}
