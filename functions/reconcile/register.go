package reconcile

import (
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/phasegate/phasegate/shared/app/production"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// init registers the name that the platform looks up; it opens nothing.
func init() {
	functions.HTTP(pipeline.FunctionReconcile, New(production.New().Get).ServeHTTP)
}
