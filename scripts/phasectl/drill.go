package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/api/logging/v2"
	"google.golang.org/api/option"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/health"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

func drillCommand(f *flags) *cobra.Command {
	o := smokeOptions{flags: f}
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Report a harmless fault, and show that health finds it and that Slack is notified",
		Long: "Report a failed run for a reserved date in the collections of the shadow, and have the deployed function health evaluate\n" +
			"them. Its check must fail, the log must have the line, and Slack must get the notification, marked as a drill. Nothing is\n" +
			"published to the next phase, and no alert fires, because alerts read other log lines.\n\n" +
			"Exit status: 0 all steps succeeded, 1 a step failed, 2 a step could not be tried.",
		Example: "  phasectl drill --project my-project",
	}
	cmd.Flags().DurationVar(&o.timeout, "timeout", 3*time.Minute, "how long each step may take; the first request after a deployment starts an instance")
	return answers(f, cmd, o.try("drill", (*smoke).drill))
}

// drill goes the way that a fault goes, and ends where it is not noticed.
func (s *smoke) drill(ctx context.Context) {
	for _, t := range s.app.Pipeline.Transitions {
		c := s.plant(ctx, t)
		s.add(c)
		if c.State != checkOK {
			return
		}
	}
	began := s.app.Now()
	d, c := s.noticed(ctx)
	s.add(c)
	if c.State != checkOK {
		return
	}
	s.add(s.logged(ctx, began))
	notification := check{ID: "notification", State: checkOK, Evidence: "Slack accepted it: check that it is in the channel"}
	if d.Problem != "" {
		notification = check{ID: "notification", State: checkFailing, Evidence: d.Problem, Action: "set slack_channel and slack_token, and run make deploy"}
	}
	s.add(notification)
}

// plant has a critical processor of the reserved period fail.
func (s *smoke) plant(ctx context.Context, t *pipeline.Transition) check {
	id := "fault in " + t.ID
	key := cycle.Key{Transition: t, Period: health.DrillPeriod(t.Calendar())}
	now := s.app.Now()
	mode, ok := t.Mode(t.ModeAt(key.Period, now))
	if !ok {
		return check{ID: id, State: checkUnknown, Evidence: fmt.Sprintf("no mode of %s is about a period that is over", t.ID), Action: "nothing is to be done: a drill needs a mode that hands over past periods"}
	}
	msg, err := s.completion(t, key.Period, now, mode.Critical[0], wire.StatusFailed, "error_message", "this is a drill")
	if err == nil {
		err = s.publish(ctx, t.ShadowTopic(), []wire.Outgoing{msg})
	}
	if err != nil {
		return failed(id, err, redeploy)
	}
	state := "no part of it is recorded"
	err = s.await(ctx, func(ctx context.Context) (bool, error) {
		periods, err := s.shadow.Engine.PeriodStates(ctx, t, key.Period, key.Period)
		if err != nil {
			return false, err
		}
		for _, st := range periods[0].Cycles {
			if st.Mode == mode.Name {
				state = st.State + ": " + st.Reason
			}
		}
		r, ok := periods[0].Newest(mode.Critical[0])
		return ok && r.ExecutionID == s.run, nil
	})
	switch {
	case errors.Is(err, errWaited):
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("%s %s, as %s: not recorded within %v; %s", key.Period, mode.Name, s.run, s.timeout, state), Action: "phasectl smoke"}
	case err != nil:
		return failed(id, err, again)
	}
	return check{ID: id, State: checkOK, Evidence: fmt.Sprintf("%s %s, as %s: %s", key.Period, mode.Name, s.run, state)}
}

// noticed has the function look, and returns what it says.
func (s *smoke) noticed(ctx context.Context) (health.Drilled, check) {
	const id = "check"
	topic, ok := s.app.Pipeline.JobTopic(pipeline.FunctionHealth)
	if !ok {
		return health.Drilled{}, check{ID: id, State: checkFailing, Evidence: "the pipeline file has no schedule for the job health", Action: "add a schedule of the job health to the pipeline file, and make deploy"}
	}
	before, _, err := health.LastDrill(ctx, s.app)
	if err != nil {
		return before, failed(id, err, again)
	}
	if err := s.send(ctx, topic, wire.Job{Job: wire.JobHealth, Date: string(health.DrillPeriod(s.app.Pipeline.Calendar))}); err != nil {
		return before, failed(id, err, redeploy)
	}
	var d health.Drilled
	err = s.await(ctx, func(ctx context.Context) (done bool, err error) {
		d, _, err = health.LastDrill(ctx, s.app)
		return d.At.After(before.At), err
	})
	switch {
	case errors.Is(err, errWaited):
		return d, check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("the function health has not looked within %v", s.timeout), Action: "phasectl smoke"}
	case err != nil:
		return d, failed(id, err, again)
	case d.State != health.Failing || !strings.Contains(d.Reason, string(health.DrillPeriod(s.app.Pipeline.Calendar))):
		return d, check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("%s is %s, and should be failing: %s", health.HandOvers, d.State, d.Reason), Action: "see that the functions run the same source and pipeline file: phasectl drift"}
	}
	return d, check{ID: id, State: checkOK, Evidence: fmt.Sprintf("%s is failing, as it should be: %s", health.HandOvers, d.Reason)}
}

// loggingOptions point the client of Cloud Logging elsewhere, in tests.
var loggingOptions []option.ClientOption

// logged looks for the line, by which alerts would know.
func (s *smoke) logged(ctx context.Context, began time.Time) check {
	const id = "event"
	if s.app.Config.PubSubHost != "" && loggingOptions == nil {
		return check{ID: id, State: checkUnknown, Evidence: "lines of this machine are in no Cloud Logging: they are in the functions' output", Action: "look for shadow_event in the output of phasectl local"}
	}
	service, err := logging.NewService(ctx, loggingOptions...)
	if err != nil {
		return failed(id, fmt.Errorf("open Cloud Logging: %w", err), again)
	}
	filter := fmt.Sprintf(`resource.type="cloud_run_revision" AND resource.labels.service_name="%sphasegate-health" AND jsonPayload.shadow_event="finding" AND jsonPayload.by="drill" AND timestamp>="%s"`,
		s.app.Config.Prefix, began.Add(-time.Minute).UTC().Format(time.RFC3339))
	line := ""
	err = s.await(ctx, func(ctx context.Context) (bool, error) {
		got, err := service.Entries.List(&logging.ListLogEntriesRequest{ResourceNames: []string{"projects/" + s.app.Config.Project}, Filter: filter, PageSize: 1, OrderBy: "timestamp desc"}).Context(ctx).Do()
		if err != nil {
			return false, fmt.Errorf("read the log: %w", err)
		}
		if len(got.Entries) == 0 {
			return false, nil
		}
		line = got.Entries[0].Timestamp
		return true, nil
	})
	switch {
	case errors.Is(err, errWaited):
		return check{ID: id, State: checkFailing, Evidence: fmt.Sprintf("no line of it within %v", s.timeout), Action: "gcloud logging read '" + filter + "'"}
	case err != nil:
		return failed(id, err, "gcloud logging read '"+filter+"'")
	}
	return check{ID: id, State: checkOK, Evidence: "in the log since " + line}
}
