package demo

import (
	"context"
	"fmt"

	"github.com/phasegate/phasegate/shared/cycle"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// most bounds what is listed one by one.
const most = 8

// list prints lines, or of many the first and how many more there are.
func (d *demo) list(sign string, lines []string) {
	if len(lines) > most {
		lines = []string{fmt.Sprintf("%s; and %d more", lines[0], len(lines)-1)}
	}
	for _, line := range lines {
		d.say("   %s %s", sign, line)
	}
}

// showReceived prints what the next phase got since the last scene.
func (d *demo) showReceived() {
	got := d.phase4.since(d.shown)
	for len(got) > 0 {
		n := 1
		for n < len(got) && got[n].Cycle == got[0].Cycle && got[n].Batch == got[0].Batch && d.seen[got[n].TriggerID] == d.seen[got[0].TriggerID] {
			n++
		}
		d.showBatch(got[:n])
		got = got[n:]
	}
}

// showBatch prints messages of one batch: each, or what many come to.
func (d *demo) showBatch(got []delivery) {
	if copies := d.seen[got[0].TriggerID]; copies && !d.Verbose && len(got) <= most {
		d.shown += len(got)
		d.say("   %s  %d copies, each with the trigger_id of its original: the next phase drops them", d.green("out"), len(got))
		return
	}
	if len(got) > most {
		first, copied := got[0], ""
		for _, t := range got {
			d.shown++
			if d.seen[t.TriggerID] {
				copied = ", copies with the same trigger_ids"
			}
			d.seen[t.TriggerID] = true
		}
		d.say("   %s  %s and %d more  %s, %s, batch %d%s", d.green("out"), first.SourceTable, len(got)-1, first.Mode, first.TriggerReason, first.Batch, copied)
		return
	}
	for _, t := range got {
		d.shown++
		copied := ""
		if d.seen[t.TriggerID] {
			copied = ", a copy with the same trigger_id"
		}
		d.seen[t.TriggerID] = true
		if t.FreshnessChecked {
			copied = ", data verified" + copied
		}
		d.say("   %s  %s  %s, %s, batch %d%s%s", d.green("out"), t.SourceTable, t.Mode, t.TriggerReason, t.Batch, copied, t.effect())
	}
}

func (d *demo) showCycle(ctx context.Context, period pipeline.Period, mode string) error {
	var ss []cycle.Status
	for _, t := range d.env.App.Pipeline.Transitions {
		of, err := d.env.App.Engine.Status(ctx, cycle.Key{Transition: t, Period: period})
		if err != nil {
			return err
		}
		ss = append(ss, of...)
	}
	for _, s := range ss {
		if s.Mode != mode || s.Transition != d.transition.ID && len(s.Satisfied) == 0 {
			continue
		}
		name := s.Mode
		if len(d.env.App.Pipeline.Transitions) > 1 {
			name = s.Transition + " " + name
		}
		d.say("   =    %s %s: %s — %s", s.Period, name, d.bold(s.State), s.Reason)
		if len(s.Ignored) > 0 {
			d.say("        recorded, never counted: %q", s.Ignored)
		}
	}
	return nil
}

// showQuarantine prints what was set aside since the last scene.
func (d *demo) showQuarantine(ctx context.Context) error {
	n := 0
	for doc, err := range d.env.App.Store.Scan(ctx, "quarantine", "!", "~") {
		if err != nil {
			return fmt.Errorf("read quarantine: %w", err)
		}
		if n++; n > d.quarantined {
			d.quarantined = n
			d.say("   %s message %s quarantined: %s", d.red("!! "), doc.Ref.ID, doc.Data["reason"])
		}
	}
	return nil
}

// say prints a line of a scene that is shown.
func (d *demo) say(format string, args ...any) {
	d.mu.Lock()
	silent := d.silent
	d.mu.Unlock()
	if !silent {
		d.print(format, args...)
	}
}

func (d *demo) print(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// A closed terminal does not end the demo; its exit code still has the result.
	_, _ = fmt.Fprintf(d.w, format+"\n", args...)
}

func (d *demo) bold(s string) string  { return d.paint("1", s) }
func (d *demo) green(s string) string { return d.paint("32", s) }

func (d *demo) red(s string) string { return d.paint("31", s) }

func (d *demo) paint(code, s string) string {
	if !d.Colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
