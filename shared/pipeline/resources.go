package pipeline

import (
	"fmt"
	"slices"
	"strings"
)

// Resources names what terraform/ deploys because of the definition, each with what it is for. Names
// have no prefix. Functions, which every definition needs, are not among them.
func (p *Pipeline) Resources() map[string]string {
	out, datasets := map[string]string{}, map[string][]string{}
	use := func(dataset, what string) {
		if !slices.Contains(datasets[dataset], what) {
			datasets[dataset] = append(datasets[dataset], what)
		}
	}
	for _, s := range p.PushSubscriptions() {
		dead := s.DeadLetter()
		out["subscription "+s.Name] = "pushes topic " + s.Topic + " to function " + ResourceName(s.Function)
		out["topic "+dead], out["subscription "+dead] = "dead letters of "+s.Topic, "keeps topic "+dead
	}
	for _, t := range p.Transitions {
		out["topic "+t.UpstreamTopic] = "completions; others publish to it, so Terraform never destroys it"
		out["topic "+t.DownstreamTopic] = "triggers; others read it, so Terraform never destroys it"
		out["topic "+t.ShadowTopic()] = "completions of the shadow"
		if t.HandOver != nil {
			out["alerts on the latency of "+t.ID] = fmt.Sprintf("warning above %s, critical above %s", t.HandOver.Warn, t.HandOver.Critical)
		}
		if t.Checks != nil {
			for _, dataset := range t.Checks.Datasets {
				use(dataset, "checks read")
			}
		}
	}
	for _, s := range p.Schedules {
		out["topic "+s.Topic()] = "jobs"
		out["scheduler job "+ResourceName(s.Name)] = fmt.Sprintf("%s in %s, job %s", s.Cron, p.Zone(s), s.Job)
	}
	for _, phase := range p.Phases {
		if phase.Service != "" {
			out["alerts on service "+phase.Service] = "phase " + phase.Name
		}
		for _, pr := range phase.Processors {
			dataset, _, _ := strings.Cut(pr.Table, ".")
			use(dataset, "reconciliation reads")
			if pr.Duplicates == DuplicatesRemove {
				use(dataset, "sweeps remove duplicates")
			}
		}
	}
	for _, dataset := range p.Health.Datasets {
		use(dataset, "health reads")
	}
	for dataset, uses := range datasets {
		slices.Sort(uses)
		out["rights on dataset "+dataset] = strings.Join(uses, ", ")
	}
	return out
}
