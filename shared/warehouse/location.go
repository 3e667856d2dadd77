package warehouse

import (
	"context"
	"fmt"
	"net/http"

	"cloud.google.com/go/bigquery"
)

// Location returns where BigQuery keeps a dataset, such as US or europe-west3; "" when there is
// no such dataset.
func (w *Warehouse) Location(ctx context.Context, dataset string) (string, error) {
	meta, err := w.dataset(ctx, dataset)
	if meta == nil || err != nil {
		return "", err
	}
	return meta.Location, nil
}

// dataset returns the metadata of a dataset, nil when there is no such dataset.
func (w *Warehouse) dataset(ctx context.Context, name string) (*bigquery.DatasetMetadata, error) {
	client, err := w.Client(ctx)
	if err != nil {
		return nil, err
	}
	var meta *bigquery.DatasetMetadata
	err = patiently(ctx, func() (err error) { meta, err = client.Dataset(name).Metadata(ctx); return err })
	if answered(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dataset %s: %w", name, err)
	}
	return meta, nil
}
