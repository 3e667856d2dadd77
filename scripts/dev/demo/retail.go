package demo

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/phasegate/phasegate/scripts/dev/processors"
	"github.com/phasegate/phasegate/shared/pipeline"
	"github.com/phasegate/phasegate/shared/wire"
)

// The retail story's hours. The first two are both 02:00 to 03:00 on the clock in Berlin.
const (
	summerHour = pipeline.Period("2026-10-25T00")
	winterHour = pipeline.Period("2026-10-25T01")
	heldHour   = pipeline.Period("2026-10-25T02")
)

// ofRegions names the processors of some kinds, one a region.
func ofRegions(kinds ...string) (names []string) {
	for _, kind := range kinds {
		for _, region := range processors.Regions {
			names = append(names, kind+"_"+region)
		}
	}
	return names
}

var (
	enriched   = ofRegions("sales", "stock", "returns", "footfall")
	aggregated = ofRegions("region_totals", "region_stock")
)

// readings are how many rows an enriching processor makes: the last shop of the north
// answers late in one hour.
func readings(hour pipeline.Period, name string) int {
	shops := processors.Shops
	if hour == winterHour && strings.HasSuffix(name, "_north") {
		shops--
	}
	switch kind, _, _ := strings.Cut(name, "_"); kind {
	case "stock":
		return processors.Articles
	case "returns":
		return shops * processors.Articles
	}
	return shops
}

// ended are successful runs of processors.
func ended(hour pipeline.Period, at string, names ...string) (rs []report) {
	for _, name := range names {
		rs = append(rs, report{processor: name, date: hour, at: at, count: readings(hour, name)})
	}
	return rs
}

func without(names []string, left ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(left, s) })
}

var retailIntro = []string{
	"You will see 24 processors complete an hour, and the relay that publishes their triggers die at the worst moment:",
	"Pub/Sub has accepted the triggers, and their ids are not recorded. The next relay resumes: no trigger is lost, none is doubled.",
	legend,
}

// playRetail is the retail pipeline's story.
func (d *demo) playRetail(ctx context.Context) error {
	d.say("The night of 2026-10-25, times in UTC: in %s the hours %s and %s are both 02:00 to 03:00. Pub/Sub %s, functions %s",
		d.env.App.Pipeline.Calendar.Zone(), summerHour, winterHour, d.env.PubSub, d.env.Functions["transition"])
	d.say("Messages stand for the runs of its forty processors, and data is not checked: the BigQuery emulator takes minutes for so many tables.")
	d.phase4.stand = d.standIn()
	scenes := []func() error{
		func() error {
			return d.scene(ctx, "2026-10-25 01:03", "The last hour of summer time is over, and all 24 processors have run. No hand-over before five past.", summerHour, "hourly",
				ended(summerHour, "2026-10-25 01:02", enriched...)...)
		},
		func() error {
			d.expect(summerHour, "hourly", enriched...)
			d.expect(summerHour, "hourly", aggregated...)
			d.crash.armed.Store(true)
			return d.relay(ctx, "2026-10-25 01:05", "The relay publishes the triggers and dies before it records their ids. The triggers complete the next phase, which is handed over too.", summerHour, "hourly")
		},
		func() error {
			return d.redeliveries(ctx, "Its job is redelivered; the claim of the dead process is still valid.", summerHour, "hourly")
		},
		func() error {
			return d.relay(ctx, "2026-10-25 01:10", "The next relay finishes what the crash left: it publishes copies, which start no work.", summerHour, "hourly")
		},
		func() error {
			return d.scene(ctx, "2026-10-25 02:06", "The same hour of the clock again is another period. The footfall of the west is missing.", winterHour, "hourly",
				ended(winterHour, "2026-10-25 02:04", without(enriched, "footfall_west")...)...)
		},
		func() error {
			d.expect(winterHour, "hourly", without(enriched, "footfall_west")...)
			d.expect(winterHour, "hourly", aggregated...)
			return d.relay(ctx, "2026-10-25 02:20", "The ten minutes of grace are over: the cycle is handed over without it.", winterHour, "hourly")
		},
		func() error {
			d.expect(winterHour, "hourly", "footfall_west")
			return d.scene(ctx, "2026-10-25 02:30", "It arrives late and is handed over late.", winterHour, "hourly",
				ended(winterHour, "2026-10-25 02:30", "footfall_west")...)
		},
		func() error {
			d.expect(winterHour, "hourly", "sales_north", "region_totals_north")
			return d.scene(ctx, "2026-10-25 02:36", "The last shop of the north has answered: one more run in each phase.", winterHour, "hourly",
				report{processor: "sales_north", date: winterHour, at: "2026-10-25 02:36", count: processors.Shops})
		},
		func() error {
			rs := append(ended(heldHour, "2026-10-25 03:04", without(enriched, "sales_online", "stock_east")...), report{processor: "sales_online", date: heldHour, at: "2026-10-25 03:04", status: "failed"})
			return d.scene(ctx, "2026-10-25 03:06", "Another hour is over. Its critical online sales failed, and the stock of the east does not report.", heldHour, "hourly", rs...)
		},
		func() error {
			return d.relay(ctx, "2026-10-25 03:50", "At its deadline it is overdue: a notification is sent, and nothing is handed over.", heldHour, "hourly")
		},
		func() error {
			d.expect(heldHour, "hourly", slices.Concat(enriched, aggregated)...)
			return d.scene(ctx, "2026-10-25 03:57", "Both arrive. The complete cycles are handed over, in both phases.", heldHour, "hourly", ended(heldHour, "2026-10-25 03:57", "sales_online", "stock_east")...)
		},
	}
	return d.scenes(scenes)
}

// standIn reports the completion that a trigger's run would have reported, once for each
// trigger.
func (d *demo) standIn() func(context.Context, wire.Trigger) error {
	var mu sync.Mutex
	stood, runs := map[string]bool{}, map[string]int{}
	return func(ctx context.Context, t wire.Trigger) error {
		name, err := processors.Sets(d.env.App.Pipeline, t.SourceTable)
		if err != nil || name == "" || d.env.App.Pipeline.ReportsTo(name) == nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if stood[t.TriggerID] {
			return nil
		}
		runs[name+string(t.GameDate)]++ // each with another count
		r := report{processor: name, date: t.GameDate, at: d.env.Clock.Now().UTC().Format(time.DateTime), count: processors.Shops + runs[name+string(t.GameDate)]}
		data, err := r.encode(d)
		if err != nil {
			return err
		}
		err = d.publish(ctx, r.waits(d).UpstreamTopic, wire.Outgoing{Data: data})
		stood[t.TriggerID] = err == nil
		return err
	}
}
