package main

import (
	"bytes"
	"errors"
	"testing"
)

func TestPlain_ShowsJoinedErrorsInOneLineAndNoControlCharacters(t *testing.T) {
	joined := errors.Join(errors.New("store is down"), errors.Join(errors.New("locks: store is down"), errors.New("no heartbeat")))
	for text, want := range map[string]string{
		joined.Error():         "store is down; locks: store is down; no heartbeat",
		"reconcile failed:\n":  "reconcile failed:",
		"a\x1b[31mred\tb\r\nc": "a\uFFFD[31mred\uFFFDb\uFFFD; c",
		"Zürich – 3 °C":        "Zürich – 3 °C",
	} {
		if got := plain(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var all tally
	all.add("4711", joined)
	p := &page{}
	all.text(p)
	var out bytes.Buffer
	if err := p.writeTo(&out); err != nil {
		t.Fatal(err)
	}
	if want := "4711: store is down; locks: store is down; no heartbeat\n"; out.String() != want {
		t.Errorf("a replay that failed prints %q, want %q", out.String(), want)
	}
}
