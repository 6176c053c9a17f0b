package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tickgate/feed/broker"
)

// Every setting is a flag, and every flag may also stand in a YAML file under
// its own name ("stall-max: 20s", or nested: "stall: {max: 20s}") or in the
// environment ("TICKGATE_STALL_MAX=20s"). The command line wins over the
// environment, which wins over the file.
const envPrefix = "TICKGATE_"

// common are the settings that every command has.
type common struct {
	config    string
	logLevel  string
	logFormat string
}

func (c *common) flags(f *pflag.FlagSet) {
	f.StringVar(&c.config, "config", os.Getenv("TICKGATE_CONFIG"), "YAML `FILE` of settings, named as the flags are")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
}

// load gives every flag that the command line left alone its value from the
// environment or the file, and returns the logger.
func (c *common) load(cmd *cobra.Command) (*slog.Logger, error) {
	if err := settings(cmd, c.config, os.Environ()); err != nil {
		return nil, err
	}
	return newLogger(cmd.ErrOrStderr(), c.logLevel, c.logFormat)
}

func settings(cmd *cobra.Command, path string, environ []string) error {
	ko := koanf.New("-")
	if path != "" {
		if err := ko.Load(file.Provider(path), yaml.Parser()); err != nil {
			return fmt.Errorf("settings file %s: %w", path, err)
		}
		known := knownSettings(cmd.Root())
		keys := settingNames(nil, "", ko.Raw())
		slices.Sort(keys)
		for i, key := range keys {
			if !slices.Contains(known, key) {
				return fmt.Errorf("settings file %s: no setting is called %q; want one of %s", path, key, strings.Join(known, ", "))
			}
			if i > 0 && keys[i-1] == key {
				return fmt.Errorf("settings file %s: %s stands twice in it, nested and by its whole name: want it once", path, key)
			}
		}
	}
	// Two maps, for a nested setting of the file and its whole name in the
	// environment would be two of one map.
	all := ko.All()
	environment := koanf.New("-")
	err := environment.Load(env.Provider("\x00", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(k, v string) (string, any) {
			return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(k, envPrefix)), "_", "-"), v
		},
	}), nil)
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	fromEnvironment := environment.All()
	var faults []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		where := "environment variable " + envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := fromEnvironment[f.Name]
		if !ok {
			where = "settings file " + path
			v, ok = all[f.Name]
		}
		if !ok || f.Changed {
			return
		}
		if err := f.Value.Set(settingText(v)); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", where, f.Name, err))
		}
	})
	return errors.Join(faults...)
}

// settingNames adds the whole names of what a file has. A setting that is there
// nested and by its whole name comes twice.
func settingNames(names []string, prefix string, m map[string]any) []string {
	for key, v := range m {
		if nested, ok := v.(map[string]any); ok && len(nested) > 0 {
			names = settingNames(names, prefix+key+"-", nested)
		} else {
			names = append(names, prefix+key)
		}
	}
	return names
}

// settingText is a YAML value as a flag would have it.
func settingText(v any) string {
	if list, ok := v.([]any); ok {
		texts := make([]string, len(list))
		for i, x := range list {
			texts[i] = fmt.Sprint(x)
		}
		return strings.Join(texts, ",")
	}
	return fmt.Sprint(v)
}

// knownSettings are the names of all commands' flags: one file may serve all.
func knownSettings(root *cobra.Command) []string {
	var names []string
	for _, cmd := range root.Commands() {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "config" {
				names = append(names, f.Name)
			}
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var lv slog.Level
	if err := lv.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("%w: --log-level %q: want debug, info, warn or error", errUsage, level)
	}
	opts := &slog.HandlerOptions{Level: lv, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // in JSON it would be a number without a unit
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("%w: --log-format %q: want text or json", errUsage, format)
}

// newRegistry is where all metrics of a process are.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

// kafkaSettings say how to reach Kafka.
type kafkaSettings struct {
	brokers       []string
	clientID      string
	tls           bool
	tlsCA         string
	tlsCert       string
	tlsKey        string
	tlsServerName string
	saslMechanism string
	saslUser      string
	saslPassword  string
}

func (k *kafkaSettings) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&k.brokers, "brokers", []string{"127.0.0.1:9092"}, "Kafka brokers to begin with, `HOST:PORT,...`")
	f.StringVar(&k.clientID, "kafka-client-id", "tickgate", "how we are called in the brokers' logs and quotas")
	f.BoolVar(&k.tls, "kafka-tls", false, "speak TLS to the brokers")
	f.StringVar(&k.tlsCA, "kafka-tls-ca", "", "PEM `FILE` of authorities to trust instead of the system's")
	f.StringVar(&k.tlsCert, "kafka-tls-cert", "", "PEM `FILE` of our certificate")
	f.StringVar(&k.tlsKey, "kafka-tls-key", "", "PEM `FILE` of its key")
	f.StringVar(&k.tlsServerName, "kafka-tls-server-name", "", "name that the brokers' certificates must have; the host's by default")
	f.StringVar(&k.saslMechanism, "kafka-sasl", "", "plain, scram-sha-256 or scram-sha-512; none by default")
	f.StringVar(&k.saslUser, "kafka-user", "", "SASL user")
	f.StringVar(&k.saslPassword, "kafka-password", "", "SASL password; better in TICKGATE_KAFKA_PASSWORD than here")
}

// client returns a client of the cluster that the settings name.
func (k *kafkaSettings) client(log *slog.Logger, reg prometheus.Registerer) (*broker.Client, error) {
	opts, err := k.options(log, reg)
	if err != nil {
		return nil, err
	}
	return broker.New(opts)
}

func (k *kafkaSettings) options(log *slog.Logger, reg prometheus.Registerer) (broker.Options, error) {
	opts := broker.Options{Brokers: k.brokers, ClientID: k.clientID, Logger: log, Registerer: reg,
		SASL: broker.SASL{Mechanism: k.saslMechanism, User: k.saslUser, Password: k.saslPassword}}
	switch {
	case k.saslMechanism == "" && (k.saslUser != "" || k.saslPassword != ""):
		return opts, fmt.Errorf("%w: --kafka-user or --kafka-password without --kafka-sasl: want plain, scram-sha-256 or scram-sha-512", errUsage)
	case k.saslMechanism != "" && k.saslUser == "":
		return opts, fmt.Errorf("%w: --kafka-sasl %s without --kafka-user", errUsage, k.saslMechanism)
	case (k.tlsCert == "") != (k.tlsKey == ""):
		return opts, fmt.Errorf("%w: --kafka-tls-cert and --kafka-tls-key: want both or none", errUsage)
	case k.tlsServerName != "" && !k.tls && k.tlsCA == "" && k.tlsCert == "":
		return opts, fmt.Errorf("%w: --kafka-tls-server-name without --kafka-tls: the brokers would be spoken to in the clear", errUsage)
	}
	if k.tls || k.tlsCA != "" || k.tlsCert != "" {
		cfg := &tls.Config{ServerName: k.tlsServerName, MinVersion: tls.VersionTLS12}
		if k.tlsCA != "" {
			pem, err := os.ReadFile(k.tlsCA)
			if err != nil {
				return opts, fmt.Errorf("--kafka-tls-ca: %w", err)
			}
			cfg.RootCAs = x509.NewCertPool()
			if !cfg.RootCAs.AppendCertsFromPEM(pem) {
				return opts, fmt.Errorf("--kafka-tls-ca %s: no PEM certificate in it", k.tlsCA)
			}
		}
		if k.tlsCert != "" || k.tlsKey != "" {
			cert, err := tls.LoadX509KeyPair(k.tlsCert, k.tlsKey)
			if err != nil {
				return opts, fmt.Errorf("--kafka-tls-cert, --kafka-tls-key: %w", err)
			}
			cfg.Certificates = []tls.Certificate{cert}
		}
		opts.TLS = cfg
	}
	return opts, nil
}
