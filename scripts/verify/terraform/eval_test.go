package terraform

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// eval evaluates an expression, after everything that it names. scope has each and the
// iterators of dynamic blocks.
func (m *module) eval(expr hclsyntax.Expression, scope map[string]cty.Value) (cty.Value, error) {
	vars := maps.Clone(scope)
	if vars == nil {
		vars = map[string]cty.Value{}
	}
	tree := map[string]map[string]cty.Value{} // var, local, module, resource types
	data := map[string]map[string]cty.Value{} // data: one level deeper
	put := func(t map[string]map[string]cty.Value, a, b string, v cty.Value) {
		if t[a] == nil {
			t[a] = map[string]cty.Value{}
		}
		t[a][b] = v
	}
	for _, tr := range expr.Variables() {
		rootName := tr.RootName()
		if _, ok := vars[rootName]; ok {
			continue
		}
		names := []string{rootName}
		for _, step := range tr[1:] {
			if a, ok := step.(hcl.TraverseAttr); ok {
				names = append(names, a.Name)
			} else {
				break
			}
		}
		if len(names) < 2 {
			return cty.NilVal, fmt.Errorf("%s: %s alone says nothing", expr.Range(), rootName)
		}
		var v cty.Value
		var err error
		switch rootName {
		case "var":
			var ok bool
			if v, ok = m.vars[names[1]]; !ok {
				err = fmt.Errorf("no variable %s", names[1])
			}
		case "local":
			v, err = m.local(names[1])
		case "path":
			v = cty.StringVal(m.dir)
		case "data":
			if v, err = m.block("data." + names[1] + "." + names[2]); err == nil {
				put(data, names[1], names[2], v)
			}
		default: // module.NAME, TYPE.NAME
			v, err = m.block(rootName + "." + names[1])
		}
		if err != nil {
			return cty.NilVal, fmt.Errorf("%s: %w", expr.Range(), err)
		}
		if rootName != "data" {
			put(tree, rootName, names[1], v)
		}
	}
	for name, members := range tree {
		vars[name] = cty.ObjectVal(members)
	}
	if len(data) > 0 {
		kinds := map[string]cty.Value{}
		for kind, members := range data {
			kinds[kind] = cty.ObjectVal(members)
		}
		vars["data"] = cty.ObjectVal(kinds)
	}
	v, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: functions})
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	return v, nil
}

// block evaluates a resource, a data source or a module to the value that expressions see: one
// object, or one for each key of for_each.
func (m *module) block(name string) (cty.Value, error) {
	b := m.blocks[name]
	if b == nil {
		return cty.NilVal, fmt.Errorf("no %s", name)
	}
	return m.once(name, func() (cty.Value, error) {
		forEach, count := b.Body.Attributes["for_each"], b.Body.Attributes["count"]
		switch {
		case forEach != nil:
			over, err := m.eval(forEach.Expr, nil)
			if err != nil {
				return cty.NilVal, err
			}
			if !over.IsKnown() || over.Type().IsSetType() && !over.IsWhollyKnown() {
				return cty.NilVal, fmt.Errorf("%s: Invalid for_each argument: its keys are unknown until apply", name)
			}
			all := map[string]cty.Value{}
			for key, value := range elements(over) {
				scope := map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key), "value": value})}
				if all[key], err = m.one(b, name, key, scope); err != nil {
					return cty.NilVal, fmt.Errorf("%s[%q]: %w", name, key, err)
				}
			}
			return cty.ObjectVal(all), nil
		case count != nil:
			n, err := m.eval(count.Expr, nil)
			if err != nil {
				return cty.NilVal, err
			}
			if !n.IsKnown() {
				return cty.NilVal, fmt.Errorf("%s: Invalid count argument: it is unknown until apply", name)
			}
			var all []cty.Value
			many, _ := n.AsBigFloat().Int64()
			for i := range many {
				v, err := m.one(b, name, fmt.Sprint(i), map[string]cty.Value{"count": cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(i)})})
				if err != nil {
					return cty.NilVal, err
				}
				all = append(all, v)
			}
			return cty.TupleVal(all), nil
		}
		return m.one(b, name, "", nil)
	})
}

// one evaluates one instance.
func (m *module) one(b *hclsyntax.Block, name, key string, scope map[string]cty.Value) (cty.Value, error) {
	address := m.prefix + name
	if key != "" {
		address += fmt.Sprintf("[%q]", key)
	}
	attributes, err := m.body(b.Body, scope, "for_each", "count", "source", "depends_on", "provider")
	if err != nil {
		return cty.NilVal, err
	}
	deferred := m.plan.stage != applied && (m.deferred || dependsOnResource(b))
	if b.Type == "module" {
		source, diags := b.Body.Attributes["source"].Expr.Value(nil)
		if diags.HasErrors() {
			return cty.NilVal, diags
		}
		child, err := m.plan.load(filepath.Join(m.dir, source.AsString()), address+".", attributes)
		if err != nil {
			return cty.NilVal, err
		}
		child.deferred = deferred
		if err := child.everything(); err != nil {
			return cty.NilVal, err
		}
		out := map[string]cty.Value{}
		for _, o := range child.names("output.") {
			if out[o], err = child.eval(child.blocks["output."+o].Body.Attributes["value"].Expr, nil); err != nil {
				return cty.NilVal, err
			}
		}
		return cty.ObjectVal(out), nil
	}
	if b.Type == "data" && m.plan.stage != applied && (deferred || !cty.ObjectVal(attributes).IsWhollyKnown()) {
		return cty.DynamicVal, nil
	}
	kind := b.Labels[0]
	if source := b.Body.Attributes["source"]; source != nil { // of a resource, an argument like any other
		if attributes["source"], err = m.eval(source.Expr, scope); err != nil {
			return cty.NilVal, err
		}
	}
	given := maps.Clone(attributes)
	if kind == "google_bigquery_dataset" && b.Type == "data" {
		attributes["location"] = cty.StringVal(cmp.Or(m.plan.locations[key], "europe-west3"))
	}
	value := cty.ObjectVal(computed(kind, key, attributes))
	if m.plan.stage == firstPlan && b.Type == "resource" {
		value = cty.ObjectVal(withoutComputed(kind, given, value.AsValueMap()))
	}
	if b.Type == "resource" {
		m.plan.instances = append(m.plan.instances, instance{address: address, kind: kind, name: b.Labels[1], key: key, kept: kept(b), value: value})
	}
	for _, l := range b.Body.Blocks {
		if l.Type != "lifecycle" {
			continue
		}
		for _, c := range l.Body.Blocks {
			if err := m.condition(c, scope); err != nil {
				return cty.NilVal, err
			}
		}
		if replace := l.Body.Attributes["replace_triggered_by"]; replace != nil {
			if _, err := m.eval(replace.Expr, scope); err != nil {
				return cty.NilVal, err
			}
		}
	}
	return value, nil
}

// body evaluates attributes and nested blocks. Blocks of one type become a tuple.
func (m *module) body(b *hclsyntax.Body, scope map[string]cty.Value, without ...string) (map[string]cty.Value, error) {
	out := map[string]cty.Value{}
	var err error
	for name, a := range b.Attributes {
		if slices.Contains(without, name) {
			continue
		}
		if out[name], err = m.eval(a.Expr, scope); err != nil {
			return nil, err
		}
	}
	nested := map[string][]cty.Value{}
	for _, n := range b.Blocks {
		if n.Type == "lifecycle" {
			continue
		}
		if n.Type != "dynamic" {
			v, err := m.body(n.Body, scope)
			if err != nil {
				return nil, err
			}
			nested[n.Type] = append(nested[n.Type], cty.ObjectVal(v))
			continue
		}
		over, err := m.eval(n.Body.Attributes["for_each"].Expr, scope)
		if err != nil {
			return nil, err
		}
		if !over.IsKnown() {
			return nil, fmt.Errorf("%s: how many %s blocks there are is unknown until apply", n.Range(), n.Labels[0])
		}
		label := n.Labels[0]
		if nested[label] == nil {
			nested[label] = []cty.Value{} // an empty tuple if there are no blocks
		}
		for it := over.ElementIterator(); it.Next(); {
			key, value := it.Element()
			inner := map[string]cty.Value{}
			maps.Copy(inner, scope)
			inner[label] = cty.ObjectVal(map[string]cty.Value{"key": key, "value": value})
			v, err := m.body(n.Body.Blocks[0].Body, inner)
			if err != nil {
				return nil, err
			}
			nested[label] = append(nested[label], cty.ObjectVal(v))
		}
	}
	for name, blocks := range nested {
		out[name] = cty.TupleVal(blocks)
	}
	return out, nil
}

// kept tells whether a resource has prevent_destroy, which takes only a literal.
func kept(b *hclsyntax.Block) bool {
	for _, l := range b.Body.Blocks {
		if a := l.Body.Attributes["prevent_destroy"]; l.Type == "lifecycle" && a != nil {
			v, diags := a.Expr.Value(nil)
			return !diags.HasErrors() && v.True()
		}
	}
	return false
}

// dependsOnResource tells whether a block's depends_on names something that an apply may change.
// Terraform then reads a data source in the apply, and its values are unknown in the plan.
// https://developer.hashicorp.com/terraform/language/data-sources#data-resource-dependencies
func dependsOnResource(b *hclsyntax.Block) bool {
	on := b.Body.Attributes["depends_on"]
	return on != nil && slices.ContainsFunc(on.Expr.Variables(), func(t hcl.Traversal) bool {
		return !slices.Contains([]string{"data", "var", "local"}, t.RootName())
	})
}

// withoutComputed makes the values unknown that computed has added to the given arguments. The
// provider knows a service account's address before it creates the account. Here it is unknown,
// which is stricter.
func withoutComputed(kind string, given, all map[string]cty.Value) map[string]cty.Value {
	for name := range all {
		if _, ok := given[name]; !ok {
			all[name] = cty.DynamicVal
		}
	}
	if kind == "google_cloudfunctions2_function" {
		service := all["service_config"].Index(cty.Zero).AsValueMap()
		service["uri"], service["service"] = cty.UnknownVal(cty.String), cty.UnknownVal(cty.String)
		all["service_config"] = cty.TupleVal([]cty.Value{cty.ObjectVal(service)})
	}
	return all
}

// computed adds the attributes that only the provider knows, in their real form.
func computed(kind, key string, a map[string]cty.Value) map[string]cty.Value {
	str := func(name string) string { return text(cty.ObjectVal(a), name) }
	id := func(format string, args ...any) {
		a["id"] = cty.StringVal("projects/" + project + "/" + fmt.Sprintf(format, args...))
	}
	id("%s/%s%s", kind, str("name"), key)
	switch kind {
	case "google_project":
		a["number"] = cty.StringVal(projectNumber)
	case "google_secret_manager_secret_version":
		a["version"] = cty.StringVal("1")
	case "google_pubsub_topic":
		id("topics/%s", str("name"))
	case "google_pubsub_subscription":
		id("subscriptions/%s", str("name"))
	case "google_service_account":
		email := str("account_id") + "@" + project + ".iam.gserviceaccount.com"
		a["email"], a["member"] = cty.StringVal(email), cty.StringVal("serviceAccount:"+email)
		id("serviceAccounts/%s", email)
	case "google_cloud_run_v2_service":
		a["uri"] = cty.StringVal("https://" + str("name") + "-uc.a.run.app")
	case "google_cloudfunctions2_function":
		service := a["service_config"].Index(cty.Zero).AsValueMap()
		service["uri"] = cty.StringVal("https://" + str("name") + "-uc.a.run.app")
		service["service"] = cty.StringVal("projects/" + project + "/locations/" + region + "/services/" + str("name"))
		a["service_config"] = cty.TupleVal([]cty.Value{cty.ObjectVal(service)})
		if _, ok := a["event_trigger"]; !ok {
			a["event_trigger"] = cty.EmptyTupleVal
		}
	case "google_bigquery_dataset":
		id("datasets/%s", str("dataset_id"))
	case "google_logging_project_sink": // all sinks of a project have one
		a["writer_identity"] = cty.StringVal("serviceAccount:service-" + projectNumber + "@gcp-sa-logging.iam.gserviceaccount.com")
	case "google_project_iam_custom_role":
		id("roles/%s", str("role_id"))
	case "google_monitoring_notification_channel":
		id("notificationChannels/%s", str("type"))
	}
	return a
}

// elements returns the keys and values of for_each. For a set, each element is key and value.
func elements(v cty.Value) map[string]cty.Value {
	if !v.Type().IsSetType() {
		return v.AsValueMap()
	}
	out := map[string]cty.Value{}
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		out[e.AsString()] = e
	}
	return out
}
