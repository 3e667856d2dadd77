package transition

import (
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// init registers the name that the platform looks up; it opens nothing.
// functions.HTTP, not functions.CloudEvent: the latter's shared receiver hangs for
// every later request once one arrives with its context cancelled.
func init() {
	functions.HTTP(pipeline.FunctionTransition, New(production.New().Get).ServeHTTP)
}
