package pipeline

// The types below are the YAML as written. What is said of a field here is what
// docs/reference/configuration.md says of its key: go test ./shared/pipeline -run Reference -update.

type file struct {
	Schema      int               `yaml:"schema"`      // 1
	Name        string            `yaml:"name"`        // of the pipeline, for people and in notices
	TimeZone    string            `yaml:"time_zone"`   // such as Europe/Berlin: of local times, of schedules, of days
	Calendar    string            `yaml:"calendar"`    // what a period is: `day`, written 2026-02-03 and bounded by midnight in time_zone; or `hour`, written 2026-02-03T14, in UTC. Default: day
	Kinds       map[string]string `yaml:"kinds"`       // kind of a processor → the key under which its changed entities stand in a trigger's entities_changed. Default: `{entity: entities}`
	Phases      []filePhase       `yaml:"phases"`      // stages of the pipeline
	Transitions []fileTransition  `yaml:"transitions"` // from one phase to the next; one's downstream may be another's upstream
	Health      *fileHealth       `yaml:"health"`      // what the health checks ask besides. Default: nothing
	Schedules   []fileSchedule    `yaml:"schedules"`   // jobs that the scheduler sends. Default: the relay, every five minutes; it is added unless one of them is the job relay
}

type filePhase struct {
	Name       string          `yaml:"name"`       // unique
	Service    string          `yaml:"service"`    // Cloud Run service of its processors, which alerts and drift look at. Default: none
	Guard      *fileGuard      `yaml:"guard"`      // what phasectl guard --phase does in front of the service, so that a trigger takes effect once. Default: nothing
	Processors []fileProcessor `yaml:"processors"` // at least one
}

type fileGuard struct {
	Scope       string              `yaml:"scope"`        // names the service in receipts; unique. Default: the service of the phase
	Paths       []string            `yaml:"paths"`        // paths on which the service receives triggers. Default: /
	Success     []int               `yaml:"success"`      // statuses by which the service says that the work was done: of 102, 200, 201, 202 and 204. Default: 200, 201, 202, 204
	SuccessJSON map[string][]string `yaml:"success_json"` // field of the answer's JSON object → the values that mean that the work was done. Default: any
	TTL         string              `yaml:"ttl"`          // how long a claim lasts unless it is renewed, 30s to 1h in whole seconds. Default: 2m
	Limit       string              `yaml:"limit"`        // how long a run may take, at most 1h in whole seconds. Default: 1h
	Cooldown    bool                `yaml:"cooldown"`     // after a failure wait for ttl before the next run. Default: false
	OnLost      string              `yaml:"on_lost"`      // `run`: let the service finish when its claim is lost; or `kill`: end it, where guard has started it. Default: run
	Unkeyed     string              `yaml:"unkeyed"`      // POSTs that are no Pub/Sub delivery: `pass` or `refuse`. Default: pass
	Serial      map[string][]string `yaml:"serial"`       // source_table of a trigger → classes of the processors of this phase that it sets off. One run at a time works on a class and a period; others are answered with 429. Default: no locks
}

type fileProcessor struct {
	Name       string   `yaml:"name"`        // unique over all phases; what transitions call it, and source_table of its triggers
	Formerly   []string `yaml:"formerly"`    // names that it had, the oldest first: what is stored stays under the oldest, and completions with any of them count. `[]` says that it never had another. Default: none
	Kind       string   `yaml:"kind"`        // one of `kinds`. Default: the only one
	Class      string   `yaml:"class"`       // the name by which its runs lock each other out, in every language; unique. Default: the oldest name in CamelCase with Processor behind it
	Table      string   `yaml:"table"`       // that it fills, dataset.table
	DateColumn string   `yaml:"date_column"` // says to which period a row belongs: a DATE where periods are days, a TIMESTAMP at the beginning of the hour where they are hours
	Key        []string `yaml:"key"`         // columns that make a row unique
	OrderBy    string   `yaml:"order_by"`    // TIMESTAMP: of several rows with one key, the newest by it is right
	Partition  string   `yaml:"partition"`   // `by_date`, `by_date_filter_required` (every query must filter) or `none`. Default: by_date
	Filled     []string `yaml:"filled"`      // columns in which NULL means that something is missing; checks with {column} are asked of each. Default: none
	Duplicates string   `yaml:"duplicates"`  // what the nightly sweep does about rows with one key: `report`, or `remove` all but the right one, which can be undone for 30 days. Default: report
}

type fileTransition struct {
	ID       string   `yaml:"id"`       // unique; in the ids of documents
	Formerly []string `yaml:"formerly"` // as of a processor: ids that it had. Default: none
	Upstream struct {
		Phase    string   `yaml:"phase"`    // whose processors are waited for
		Topic    string   `yaml:"topic"`    // to which they report; of one transition only
		Replaces []string `yaml:"replaces"` // subscriptions by which another orchestrator gets the same reports, by name; * is any part of a name, as in `eventarc-*-orchestrator-*`. While one exists, `make deploy` refuses a deployment that would hand over. Default: none
	} `yaml:"upstream"`
	Downstream struct {
		Phase           string   `yaml:"phase"`            // that is handed over to
		Topic           string   `yaml:"topic"`            // of its triggers
		TriggeredBy     string   `yaml:"triggered_by"`     // triggered_by of the triggers. Default: the oldest id of the transition
		ParentProcessor string   `yaml:"parent_processor"` // parent_processor of the triggers. Default: the oldest id of the transition in CamelCase with Orchestrator behind it
		Order           []string `yaml:"order"`            // of the messages of one hand-over: each processor that any mode names, once; 10,000 at most. Default: in the order of the phase
	} `yaml:"downstream"`
	CompatibilityCollection string `yaml:"compatibility_collection"` // of the documents, one a period, that others read. Default: the oldest id of the transition with _completion behind it
	TriggerWithin           string `yaml:"trigger_within"`           // automatic hand-overs happen while the needed runs end within this time after the period's end, such as 72h; older ones are overdue. At least 1h, or 5m where periods are hours. Default: 72h
	ManagedSince            string `yaml:"managed_since"`            // reconciliation compares no earlier period. Default: the first recorded one, which the first relay stores once
	HandOver                *struct {
		Warn     string `yaml:"warn"`     // whole seconds, such as 5m
		Critical string `yaml:"critical"` // more than warn
	} `yaml:"hand_over"` // limits for the time from due to the broker's last answer; above them an alert reports it. Default: no limits
	Modes  []fileMode  `yaml:"modes"`  // kinds of cycles that a period goes through, at most one for each event, in the order before, within, after
	Checks *fileChecks `yaml:"checks"` // what has to be true of the data before a hand-over. Default: nothing is asked, and messages say so
}

type fileMode struct {
	Name     string   `yaml:"name"`     // unique in the transition
	Formerly []string `yaml:"formerly"` // as of a processor: names that it had. Default: none
	Event    string   `yaml:"event"`    // runs that end `before`, `within` or `after` the period belong to this mode
	Critical []string `yaml:"critical"` // processors without which nothing is handed over; at least one. Default: all of the phase that are not optional
	Optional []string `yaml:"optional"` // the others that are waited for. Default: none
	Complete string   `yaml:"complete"` // when it is complete at once: `all` or `critical`. Default: all
	Grace    *struct {
		QuorumPct int    `yaml:"quorum_pct"` // of all processors, 1 to 100
		After     string `yaml:"after"`      // such as 30m, since critical ones and quorum were there; less than from counts_from to the deadline
	} `yaml:"grace"` // hands over without some optional ones. Default: never
	CountsFrom    string   `yaml:"counts_from"`    // runs that ended earlier do not count. Not after the end of event. A time relative to the period, of days on the local clock: `18:00`, `-1d 16:30`, `+1d 05:00`; of hours: `:20`, `-1h :50`, `+2h :05`. Default: the beginning of event; for before, one period before the period
	AcceptEarlier []string `yaml:"accept_earlier"` // processors of which a run counts here too if it counts for the earlier mode in whose time it ended, from that mode's `counts_from` on. Default: none
	NotBefore     string   `yaml:"not_before"`     // a time as counts_from: nothing is handed over before. No later than the end of trigger_within. Default: at once
	Deadline      string   `yaml:"deadline"`       // a time as counts_from: a cycle that is not complete by then is overdue, and people are notified. Not before counts_from, not_before and the beginning of event, no later than the end of trigger_within. Default: none
	AtDeadline    string   `yaml:"at_deadline"`    // `hold`, or `hand_over` the complete processors, if all critical ones are complete. Default: hold
	SecondRuns    string   `yaml:"second_runs"`    // what a further run of a processor means that was handed over: `ignore` or `resend_if_changed`. Default: resend_if_changed
	// A processor that reports another count each time must not set the next phase off each time.
	SecondRunsEvery string `yaml:"second_runs_every"` // with resend_if_changed: the least time, at most 24h, between two such further hand-overs of one processor; its runs in between are collected and go together. Default: 2m
}

type fileSchedule struct {
	Name     string `yaml:"name"`     // unique
	Cron     string `yaml:"cron"`     // five fields as Cloud Scheduler reads them, in time_zone; in UTC for relay and health if the hour begins with `*`. No other job may have a time that the clock of time_zone skips or repeats on any of its days until 2045. A job of a day whose hour the clock repeats is due the first time
	Function string `yaml:"function"` // `reconcile`, `sweep` or `health`
	Job      string `yaml:"job"`      // of reconcile `relay` or `nightly`; else the function's name
}

type fileChecks struct {
	Timeout        string           `yaml:"timeout"`            // of one query, 50s at most. Default: 30s
	MaxBytesBilled *int64           `yaml:"max_bytes_billed"`   // of one query; BigQuery bills at least 10 MiB a table. Default: 1000000000
	Datasets       []string         `yaml:"datasets"`           // that the statements read; the functions may read no others. Default: those of the tables of the upstream phase
	Tables         []fileCheckTable `yaml:"tables"`             // queries that the statements can name like tables. Default: none
	Expected       string           `yaml:"expected"`           // query for how many units of work @period should bring; 0: nothing is to come. Default: not known
	ByPeriod       string           `yaml:"expected_by_period"` // query for the same about @first to @last: period, number. Default: not known
	BeforeHandOver []fileCheck      `yaml:"before_hand_over"`   // at least one, about 1000 tables at most in each mode
}

type fileCheckTable struct {
	Name string `yaml:"name"` // unique
	SQL  string `yaml:"sql"`  // query; knows @period
}

type fileCheck struct {
	Name       string   `yaml:"name"`       // unique. The number of minutes_coverage_pct is handed over in the field of that name
	SQL        string   `yaml:"sql"`        // query for one number, NULL when it cannot be known; knows @period, a DATE or a TIMESTAMP as date_column is. With {table}, {date_column} or {column} it is asked of each processor. A partitioned table of a processor needs a condition on the bare date column
	Modes      []string `yaml:"modes"`      // Default: all
	Processors []string `yaml:"processors"` // it is asked before hand-overs of one of them. Default: all
	Warn       string   `yaml:"warn"`       // what the number must not be, such as `< 80`: then a notification is sent. Default: nothing
	Block      string   `yaml:"block"`      // the same: then nothing is handed over. Default: nothing; one of the two is needed
	Unknown    string   `yaml:"unknown"`    // what a missing answer means: `block` or `warn`. Default: block
}

type fileHealth struct {
	Datasets []string `yaml:"datasets"` // that the statements read; the functions may read no others. Default: none
	Upstream *struct {
		SQL          string `yaml:"sql"`           // query for the first run of each source on each day from @first to @last, DATEs: name, day, time. A column in a function, such as DATE(started_at, zone), needs a bare range next to it
		ExpectedBy   string `yaml:"expected_by"`   // local time of the day, such as 08:00
		FailingAfter string `yaml:"failing_after"` // local time of the day
	} `yaml:"upstream"` // what has to run before the first phase. Default: nothing is known of it
	Runs       string `yaml:"runs"`        // query for the runs that began on the days from @first to @last, DATEs: processor (name or class), period of the data, run id, begin, end (NULL: none yet). Default: no history is kept
	DigestAt   string `yaml:"digest_at"`   // local time from which the digest of the day is sent. Default: 09:00
	UnseenDays *int   `yaml:"unseen_days"` // for how many days with expected work a processor may not report, 1 to 6. Default: 3
	SLOPct     *int   `yaml:"slo_pct"`     // goal for the share of cycles that are handed over before their deadline, 1 to 100 percent, shown on the status page. Default: 99

	Maintenance []struct {
		From   string `yaml:"from"`   // period
		To     string `yaml:"to"`     // period, included
		Reason string `yaml:"reason"` // the reason, shown to people
	} `yaml:"maintenance"` // planned work: its periods cause no notification. Default: none
}
