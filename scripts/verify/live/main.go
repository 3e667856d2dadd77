// Command live tries Phasegate on a project of Google Cloud: what emulators cannot show.
//
//	make verify-live PROJECT=my-project
//	make verify-live PROJECT=my-project CLEAN=1
//
// It asks before it begins, and prints what was expected and what was measured. It removes what it
// made, also after an interrupt. After a crash, CLEAN=1 does so. All that it makes has a name
// that begins with pgverify; datasets, topics and subscriptions also have the label
// phasegate=verify-live. It changes and removes nothing else.
//
// Credentials are Application Default Credentials. The exit status is 0 if all is as expected, 1 if
// something is not, 2 if it could not be tried or not be removed, 64 for wrong usage.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"cloud.google.com/go/bigquery"
	"google.golang.org/api/option"
)

const (
	exitDiffers = 1
	exitUnknown = 2
	exitUsage   = 64
)

// options are the arguments, and what a test has in the place of Google Cloud.
type options struct {
	project, processor, sweeper string
	clean, yes                  bool

	as         func(ctx context.Context, account string) (*bigquery.Client, error) // nil: by impersonation
	monitoring []option.ClientOption                                               // of the client of Cloud Monitoring
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout))
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) int {
	var o options
	set := flag.NewFlagSet("verify-live", flag.ContinueOnError)
	set.SetOutput(out)
	set.StringVar(&o.project, "project", "", "the project of Google Cloud")
	set.StringVar(&o.processor, "processor", "", "service account that writes, which you may impersonate")
	set.StringVar(&o.sweeper, "sweeper", "", "service account that asks about the job of the first one")
	set.BoolVar(&o.clean, "clean", false, "remove what earlier runs left, and do nothing else")
	set.BoolVar(&o.yes, "yes", false, "do not ask")
	if err := set.Parse(args); err != nil {
		return exitUsage
	}
	if o.project == "" || set.NArg() > 0 || (o.processor == "") != (o.sweeper == "") {
		fmt.Fprintln(out, "verify-live: PROJECT= is required, and PROCESSOR= and SWEEPER= only together")
		return exitUsage
	}
	if !o.yes && !agreed(o, in, out) {
		fmt.Fprintln(out, "nothing was done")
		return exitUsage
	}
	if o.clean {
		return cleaned(ctx, o.project, namesBegin, out)
	}
	return try(ctx, o, newID(), out)
}

func newID() string { return namesBegin + "-" + strings.ToLower(rand.Text()[:8]) }

// try makes everything, tries it, prints the results and removes what it made.
func try(ctx context.Context, o options, id string, out io.Writer) int {
	fmt.Fprintf(out, "the names of this run begin with %s\n", id)
	results, err := verify(ctx, o, id, out)
	code := print(out, results)
	if err != nil {
		fmt.Fprintln(out, "stopped:", err)
		code = exitUnknown
	}
	// Removing is not interrupted with the run.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Minute)
	defer cancel()
	return max(code, cleaned(after, o.project, id, out))
}

// agreed names what will be done and what it costs, and asks.
func agreed(o options, in io.Reader, out io.Writer) bool {
	if o.clean {
		fmt.Fprintf(out, "This removes all datasets, topics and subscriptions of %s with the label %s=%s and all Firestore collections\n"+
			"of its database (default) whose names begin with %s.\n", o.project, label, labelValue, namesBegin)
	} else {
		fmt.Fprintf(out, "This makes, uses and removes in %s: 3 datasets in the EU, 5 topics, 4 subscriptions, and some 500 documents in Firestore.\n"+
			"It runs some 35 load jobs and 150 queries. At list prices that is below $0.10, and it takes some minutes.\n", o.project)
	}
	fmt.Fprint(out, "Go on? yes/no: ")
	answer, _ := bufio.NewReader(in).ReadString('\n')
	return strings.TrimSpace(answer) == "yes"
}

// result is a line of the table.
type result struct {
	what, expected, measured string
	state                    state
}

type state string

const (
	asExpected state = "ok"
	differs    state = "differs"
	untried    state = "not tried"
)

func print(out io.Writer, results []result) (code int) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tWHAT\tEXPECTED\tMEASURED")
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.state, r.what, r.expected, r.measured)
		if r.state == differs {
			code = exitDiffers
		}
	}
	if err := w.Flush(); err != nil {
		return exitUnknown
	}
	return code
}

func cleaned(ctx context.Context, project, prefix string, out io.Writer) int {
	removed, err := clean(ctx, project, prefix)
	for _, name := range removed {
		fmt.Fprintln(out, "removed", name)
	}
	if err != nil {
		fmt.Fprintf(out, "not everything was removed: %v\nfix: make verify-live PROJECT=%s CLEAN=1\n", errors.Join(err), project)
		return exitUnknown
	}
	return 0
}
