// Package guardcmd is the command guard. It listens in front of a service: in front of a
// command that it starts (parent), or of a service that runs next to it (sidecar).
package guardcmd

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/phasegate/phasegate/shared/guard"
	"github.com/phasegate/phasegate/shared/lease"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/receipt"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/telemetry"
)

const (
	// Cloud Run sends SIGTERM and, ten seconds later, SIGKILL
	// (https://cloud.google.com/run/docs/container-contract#instance-shutdown).
	stopGrace = 8 * time.Second
	// settleGrace is how long results are recorded after the service has ended.
	settleGrace = time.Second
)

// UsageError is an error of the command line.
type UsageError struct{ error }

// Usage returns a UsageError.
func Usage(text string) error { return UsageError{errors.New(text)} }

// ExitError has the exit status of the service's command, and why the guard ended.
type ExitError struct {
	Code int
	error
}

// options are the flags.
type options struct {
	listen, upstream, scope      string
	paths                        []string
	success                      []int
	successJSON                  []string
	ttl, limit, startLimit       time.Duration
	cooldown                     bool
	onLost, unkeyed, prefix, log string

	phase    string
	pipeline *pipeline.Pipeline  // nil without phase
	fields   map[string][]string // success_json of the phase
	serial   map[string][]string
}

// Load reads the pipeline file.
type Load func() (*pipeline.Pipeline, error)

// OpenStore opens the document store, and returns what closes it.
type OpenStore func(ctx context.Context) (store.Store, func() error, error)

// New returns the command.
func New(open OpenStore, load Load) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "guard [-- COMMAND [ARG]...]",
		Short: "Stand in front of a service that receives triggers, and let each take effect once",
		Long: "Stand in front of an HTTP service that receives Pub/Sub push deliveries and knows nothing of copies. A copy of a\n" +
			"delivery that was done is answered with 204 and not forwarded; a copy of one that is at work is answered with 429.\n\n" +
			"With a COMMAND, guard starts the service and gives it a free port in PORT; as the entry point of a container this is\n" +
			"the recommended form. Without one, --upstream names a service that runs next to it. guard itself listens on $PORT.\n\n" +
			"With --phase the keys phases[].guard of the pipeline file stand for flags that are not given.\n\n" +
			"The subscription needs an ack deadline of 600 s, a retry policy (10 to 600 s), and a dead letter after at least 20\n" +
			"attempts. Pub/Sub delivers again while a long run is at work, and counts each 429 as an attempt.\n\n" +
			"Exit status: that of the COMMAND; without one 0 after SIGTERM.",
		Example: "  phasectl guard -- gunicorn --workers 1 --timeout 3500 main:app\n" +
			"  phasectl guard --upstream http://127.0.0.1:8081 --paths /process",
		Args: func(_ *cobra.Command, command []string) error {
			if (len(command) > 0) == (o.upstream != "") {
				return UsageError{errors.New("wants a command after --, or --upstream, and not both")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, command []string) error {
			if err := o.fromFile(cmd.Flags(), load); err != nil {
				return UsageError{err}
			}
			return o.run(cmd, open, command)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.phase, "phase", "", "the phase of the pipeline file whose keys under guard are the flags' defaults")
	fl.StringVar(&o.listen, "listen", "", "address to listen on (default :$PORT, else :8080)")
	fl.StringVar(&o.upstream, "upstream", "", "address of a service that runs already, such as http://127.0.0.1:8081")
	fl.StringVar(&o.scope, "scope", "", "name of the service in receipts (default $K_SERVICE)")
	fl.StringSliceVar(&o.paths, "paths", []string{"/"}, "paths on which the service receives triggers")
	fl.IntSliceVar(&o.success, "success", []int{200, 201, 202, 204}, "statuses by which the service says that the work was done")
	fl.StringArrayVar(&o.successJSON, "success-json", nil, "FIELD=VALUE[,VALUE]: a field of the answer must have one of the values")
	fl.DurationVar(&o.ttl, "ttl", 2*time.Minute, "how long a claim lasts unless it is renewed")
	fl.DurationVar(&o.limit, "limit", receipt.MaxRun, "how long a run may take")
	fl.DurationVar(&o.startLimit, "start-limit", 4*time.Minute, "how long the service may take to listen")
	fl.BoolVar(&o.cooldown, "cooldown", false, "after a failure wait for --ttl before the next run")
	fl.StringVar(&o.onLost, "on-lost", "run", "run: let the service finish when its claim is lost; kill: end it")
	fl.StringVar(&o.unkeyed, "unkeyed", "pass", "pass: forward POSTs that are no Pub/Sub delivery; refuse: answer 400")
	fl.StringVar(&o.prefix, "prefix", "", "prefix of collections (default $PHASEGATE_PREFIX)")
	fl.StringVar(&o.log, "log-level", "", "debug, info, warn or error (default $LOG_LEVEL, else info)")
	return cmd
}

// fromFile takes the keys of a phase for flags that were not given.
func (o *options) fromFile(given *pflag.FlagSet, load Load) error {
	if o.phase == "" {
		return nil
	}
	p, err := load()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(p.Phases, func(ph pipeline.Phase) bool { return ph.Name == o.phase })
	if i < 0 {
		var names []string
		for _, ph := range p.Phases {
			names = append(names, ph.Name)
		}
		return fmt.Errorf("--phase %q: the pipeline file has %s%s", o.phase, strings.Join(names, ", "), pipeline.DidYouMean(o.phase, names))
	}
	g := p.Phases[i].Guard
	if g == nil {
		return fmt.Errorf("--phase %q: phases[%d] of the pipeline file has no guard: write guard: {} there, or leave --phase out", o.phase, i)
	}
	o.pipeline, o.serial = p, g.Serial
	for name, take := range map[string]func(){
		"scope": func() { o.scope = g.Scope }, "paths": func() { o.paths = g.Paths }, "success": func() { o.success = g.Success },
		"success-json": func() { o.fields = g.SuccessJSON }, "ttl": func() { o.ttl = g.TTL }, "limit": func() { o.limit = g.Limit },
		"cooldown": func() { o.cooldown = g.Cooldown }, "on-lost": func() { o.onLost = string(g.OnLost) }, "unkeyed": func() { o.unkeyed = string(g.Unkeyed) },
	} {
		if !given.Changed(name) {
			take()
		}
	}
	return nil
}

// locked returns the locks of the processors that a trigger sets off, sorted. The service's own
// locks have other names: it would skip its work if it met ours. Data that names no table of
// serial needs no lock.
func (o *options) locked(data []byte) ([]lease.Key, error) {
	var trigger struct {
		SourceTable string `json:"source_table"`
		Period      string `json:"game_date"`
	}
	_ = json.Unmarshal(data, &trigger) // other messages may come here, too
	classes := o.serial[trigger.SourceTable]
	if len(classes) == 0 {
		return nil, nil
	}
	period, err := o.pipeline.Calendar.Parse(trigger.Period)
	if err != nil {
		return nil, fmt.Errorf("game_date of a trigger of %s: %w", trigger.SourceTable, err)
	}
	var keys []lease.Key
	for _, class := range slices.Sorted(slices.Values(classes)) {
		keys = append(keys, lease.Key{Class: "guard_" + class, Period: period})
	}
	return keys, nil
}

// fromEnvironment fills in flags that were not given.
func (o *options) fromEnvironment() {
	port := cmp.Or(os.Getenv("PORT"), "8080")
	o.listen = cmp.Or(o.listen, ":"+port)
	o.scope = cmp.Or(o.scope, os.Getenv("K_SERVICE"))
	o.prefix = cmp.Or(o.prefix, os.Getenv("PHASEGATE_PREFIX"))
	o.log = cmp.Or(o.log, os.Getenv("LOG_LEVEL"))
}

func (o *options) run(cmd *cobra.Command, open OpenStore, command []string) error {
	o.fromEnvironment()
	c, err := o.config(len(command) > 0)
	if err != nil {
		return UsageError{err}
	}
	log, err := telemetry.New(cmd.OutOrStdout(), o.log)
	if err != nil {
		return UsageError{err}
	}
	s, closeStore, err := open(cmd.Context())
	if err != nil {
		return err
	}
	defer closeStore()
	instance, _ := os.Hostname()
	instance += " " + strconv.Itoa(os.Getpid())
	newID := func() string { return strings.ToLower(rand.Text()) }
	c.NewID, c.Log = newID, log
	c.Receipts = receipt.New(receipt.Config{Store: s, Now: time.Now, NewID: newID, TTL: o.ttl, Prefix: o.prefix, Instance: instance, Log: log})
	if len(o.serial) > 0 {
		c.Serial = o.locked
		c.Locks = lease.New(lease.Config{Store: s, Now: time.Now, NewID: newID, Lease: o.ttl, Prefix: o.prefix, Instance: instance, Log: log})
	}
	p := process{log: log, startLimit: o.startLimit, cmd: cmd}
	if len(command) > 0 {
		if c.Upstream, err = p.start(command); err != nil {
			return err
		}
		if o.onLost == "kill" {
			c.Kill = p.kill
		}
	}
	p.upstream = c.Upstream
	g, err := guard.New(c)
	if err != nil {
		p.kill()
		return UsageError{err}
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		p.kill()
		return UsageError{fmt.Errorf("--listen: %w", err)}
	}
	log.Info("guard listens on "+l.Addr().String(), "address", l.Addr().String(), "scope", o.scope, "upstream", c.Upstream.String())
	server := &http.Server{Handler: p.whenReady(g), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	err = p.wait(cmd.Context(), g, served)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), settleGrace)
	defer cancel()
	_ = server.Shutdown(ctx) // answers are sent; a client that does not read them is not waited for
	return err
}

// config reads the flags that do not need the store.
func (o *options) config(parent bool) (guard.Config, error) {
	c := guard.Config{Scope: o.scope, Paths: o.paths, Success: o.success, SuccessJSON: o.fields, Limit: o.limit, Cooldown: o.cooldown, RefuseOther: o.unkeyed == "refuse"}
	switch {
	case !pipeline.ScopeForm.MatchString(o.scope):
		return c, fmt.Errorf("--scope %q: is no name of a service, such as phase4-processors", o.scope)
	case o.onLost != "run" && o.onLost != "kill":
		return c, fmt.Errorf("--on-lost %q: is not run or kill", o.onLost)
	case o.onLost == "kill" && !parent:
		return c, errors.New("--on-lost kill: guard can end only a service that it has started: give its command after --")
	case o.unkeyed != "pass" && o.unkeyed != "refuse":
		return c, fmt.Errorf("--unkeyed %q: is not pass or refuse", o.unkeyed)
	case o.startLimit <= 0:
		return c, fmt.Errorf("--start-limit %s: must be positive", o.startLimit)
	}
	for _, rule := range o.successJSON {
		field, values, ok := strings.Cut(rule, "=")
		if !ok || field == "" || values == "" {
			return c, fmt.Errorf("--success-json %q: is not FIELD=VALUE, such as status=completed", rule)
		}
		if c.SuccessJSON == nil {
			c.SuccessJSON = map[string][]string{}
		}
		c.SuccessJSON[field] = strings.Split(values, ",")
	}
	if !parent {
		var err error
		if c.Upstream, err = url.Parse(o.upstream); err != nil {
			return c, fmt.Errorf("--upstream %q: %w", o.upstream, err)
		}
	}
	return c, nil
}
