package terraform

import (
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	yaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions are the Terraform functions that terraform/ calls. A call of another function is an
// error until it is added here.
var functions = map[string]function.Function{
	"coalesce": stdlib.CoalesceFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc,
	"flatten": stdlib.FlattenFunc, "floor": stdlib.FloorFunc, "join": stdlib.JoinFunc, "jsonencode": stdlib.JSONEncodeFunc,
	"keys": stdlib.KeysFunc, "merge": stdlib.MergeFunc, "max": stdlib.MaxFunc, "min": stdlib.MinFunc, "regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc,
	"setproduct": stdlib.SetProductFunc, "setsubtract": stdlib.SetSubtractFunc, "setunion": stdlib.SetUnionFunc, "sort": stdlib.SortFunc, "split": stdlib.SplitFunc,
	"substr": stdlib.SubstrFunc, "title": stdlib.TitleFunc, "trimsuffix": stdlib.TrimSuffixFunc,
	"tonumber": stdlib.MakeToFunc(cty.Number), "tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)), "toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
	"can": tryfunc.CanFunc, "try": tryfunc.TryFunc,
	"yamldecode": yaml.YAMLDecodeFunc,
	"jsondecode": stdlib.JSONDecodeFunc, "values": stdlib.ValuesFunc,
	"alltrue": ofBools(true), "anytrue": ofBools(false),

	"basename": ofStrings(func(s ...string) (cty.Value, error) { return cty.StringVal(s[0][strings.LastIndex(s[0], "/")+1:]), nil }, 1),
	"base64encode": ofStrings(func(s ...string) (cty.Value, error) {
		return cty.StringVal(base64.StdEncoding.EncodeToString([]byte(s[0]))), nil
	}, 1),
	"startswith":  ofStrings(func(s ...string) (cty.Value, error) { return cty.BoolVal(strings.HasPrefix(s[0], s[1])), nil }, 2),
	"replace":     ofStrings(replace, 3),
	"strcontains": ofStrings(func(s ...string) (cty.Value, error) { return cty.BoolVal(strings.Contains(s[0], s[1])), nil }, 2),
	"base64decode": ofStrings(func(s ...string) (cty.Value, error) {
		b, err := base64.StdEncoding.DecodeString(s[0])
		return cty.StringVal(string(b)), err
	}, 1),
	"file": ofStrings(func(s ...string) (cty.Value, error) {
		b, err := os.ReadFile(s[0])
		return cty.StringVal(string(b)), err
	}, 1),
	"fileexists": ofStrings(func(s ...string) (cty.Value, error) {
		info, err := os.Stat(s[0])
		return cty.BoolVal(err == nil && info.Mode().IsRegular()), nil
	}, 1),
	"length": function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if args[0].Type() == cty.String {
				return stdlib.Strlen(args[0])
			}
			return args[0].Length(), nil
		},
	}),
}

// replace treats a text between slashes as a regular expression, as Terraform does.
func replace(s ...string) (cty.Value, error) {
	if len(s[1]) > 1 && strings.HasPrefix(s[1], "/") && strings.HasSuffix(s[1], "/") {
		re, err := regexp.Compile(s[1][1 : len(s[1])-1])
		if err != nil {
			return cty.NilVal, fmt.Errorf("replace: %w", err)
		}
		return cty.StringVal(re.ReplaceAllString(s[0], s[2])), nil
	}
	return cty.StringVal(strings.ReplaceAll(s[0], s[1], s[2])), nil
}

// ofStrings makes a function of n strings.
func ofStrings(f func(...string) (cty.Value, error), n int) function.Function {
	spec := &function.Spec{Type: func([]cty.Value) (cty.Type, error) { return cty.DynamicPseudoType, nil }}
	for range n {
		spec.Params = append(spec.Params, function.Parameter{Name: "text", Type: cty.String})
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		var ss []string
		for _, a := range args {
			ss = append(ss, a.AsString())
		}
		return f(ss...)
	}
	return function.New(spec)
}

// ofBools makes alltrue and anytrue: whether every element is true, or any. An unknown
// element makes the answer unknown unless another element decides it.
func ofBools(all bool) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "list", Type: cty.List(cty.Bool)}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			answer := cty.BoolVal(all)
			for _, v := range args[0].AsValueSlice() {
				switch {
				case !v.IsKnown():
					answer = cty.UnknownVal(cty.Bool)
				case v.True() != all:
					return cty.BoolVal(!all), nil
				}
			}
			return answer, nil
		},
	})
}
