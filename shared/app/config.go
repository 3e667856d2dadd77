// Package app turns the environment into a running application: configuration,
// clients, store and engine, made when first needed. Functions and phasectl share
// it; each hands in the store driver that it links.
package app

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/notify"
)

// Version and SourceHash identify what runs. phasectl's build sets them with linker
// flags; a function's archive, built by the platform, in its root file.
var (
	Version    = "dev"
	SourceHash = "unset"
)

// Config is what the environment says; the README lists the variables.
type Config struct {
	Project      string
	PipelineFile string // "" means the embedded definition
	Store        string // firestore, firestore:DATABASE, sqlite:FILE, memory
	Prefix       string // of collections and topics
	Shadow       string // of collections too, after Prefix; "" means active: see [Config.StatePrefix]
	ReadOnly     bool   // sweeps read the tables and change none
	Claim        time.Duration
	Lease        time.Duration // of a processor's lock
	LogLevel     string
	PubSubHost   string // emulator's host:port; "" means Google's
	BigQueryHost string // emulator's host:port; "" means Google's
	Slack        notify.Slack
	Page         string // address of the status page, without a slash at its end; "" where none is configured
	// Local: the documents are on this machine, not in Google's Firestore.
	Local bool
}

// Staging is the dataset that holds rows before they are merged into their tables.
func (c Config) Staging() string { return strings.ReplaceAll(c.Prefix, "-", "_") + "phasegate_staging" }

// Archive is the dataset that keeps the rows that sweeps removed.
func (c Config) Archive() string {
	return strings.ReplaceAll(c.Prefix, "-", "_") + "phasegate_sweep_archive"
}

var prefixForm = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]{0,29})?$`)

// shadow begins the names of the collections of a shadow.
const shadow = "shadow_"

// StatePrefix is the prefix of the names of all collections of state. An application with a
// Shadow has collections of its own; it publishes and projects nothing.
func (c Config) StatePrefix() string { return c.Prefix + c.Shadow }

// ConfigFromEnv reads and validates the environment. The error joins every problem,
// each naming its variable and value.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	c := Config{
		Project:      getenv("GOOGLE_CLOUD_PROJECT"),
		PipelineFile: getenv("PIPELINE_FILE"),
		Store:        getenv("PHASEGATE_STORE"),
		Prefix:       getenv("PHASEGATE_PREFIX"),
		Claim:        time.Minute,
		Lease:        lease.Max,
		LogLevel:     getenv("LOG_LEVEL"),
		PubSubHost:   getenv("PUBSUB_EMULATOR_HOST"),
		BigQueryHost: getenv("BIGQUERY_EMULATOR_HOST"),
		Slack:        notify.FromEnv(getenv),
	}
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if page := getenv("PHASEGATE_PAGE"); page != "" {
		if u, err := url.Parse(page); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			bad("PHASEGATE_PAGE", "%q is no address such as https://status.example.com", page)
		}
		c.Page = strings.TrimRight(page, "/")
	}
	if c.Project == "" {
		bad("GOOGLE_CLOUD_PROJECT", "is required")
	}
	if c.Store == "" {
		c.Store = "firestore"
	}
	switch kind, name, named := strings.Cut(c.Store, ":"); {
	case kind == "firestore" && (!named || name != ""), kind == "sqlite" && name != "", c.Store == "memory":
	default:
		bad("PHASEGATE_STORE", "%q is not one of firestore, firestore:DATABASE, sqlite:FILE, memory", c.Store)
	}
	c.Local = !strings.HasPrefix(c.Store, "firestore") || getenv("FIRESTORE_EMULATOR_HOST") != ""
	if c.PubSubHost != "" && !c.Local {
		bad("PUBSUB_EMULATOR_HOST", "%q is set, but PHASEGATE_STORE is Google's Firestore: unset it, or set FIRESTORE_EMULATOR_HOST too", c.PubSubHost)
	}
	if !prefixForm.MatchString(c.Prefix) {
		bad("PHASEGATE_PREFIX", "%q may hold letters, digits, _ and -, a letter first, at most 30", c.Prefix)
	}
	if strings.HasSuffix(c.Prefix, shadow) {
		bad("PHASEGATE_PREFIX", "%q must not end in shadow_, the prefix of a shadow's collections: choose another prefix", c.Prefix)
	}
	duration := func(name string, into *time.Duration, least, most time.Duration) {
		s := getenv(name)
		if s == "" {
			return
		}
		d, err := time.ParseDuration(s)
		if err != nil || d < least || d > most {
			bad(name, "%q is no duration from %gs to %gm", s, least.Seconds(), most.Minutes())
		}
		*into = d
	}
	duration("PHASEGATE_CLAIM", &c.Claim, time.Second, 10*time.Minute)
	duration("PHASEGATE_LEASE", &c.Lease, 2*time.Second, lease.Max)
	// Another value must not mean false: the deployment would publish when it should not.
	switch v := getenv("PHASEGATE_SHADOW"); v {
	case "", "false":
	case "true":
		c.Shadow = shadow
	default:
		bad("PHASEGATE_SHADOW", "%q is not one of true, false", v)
	}
	// Two environments may share tables, and the locks of one do not stop the other: only one may
	// write. An environment with a prefix is taken for the other one.
	switch m := getenv("PHASEGATE_TABLES"); m {
	case "":
		c.ReadOnly = c.Prefix != ""
	case "write":
	case "read":
		c.ReadOnly = true
	default:
		bad("PHASEGATE_TABLES", "%q is not one of write, read", m)
	}
	return c, errors.Join(errs...)
}

// FromEnv is ConfigFromEnv on the process's environment.
func FromEnv() (Config, error) { return ConfigFromEnv(os.Getenv) }
