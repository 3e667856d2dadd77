package wire

import (
	"bytes"
	"encoding/json"
	"regexp"
)

// pythonNumber is what Python's json.dumps writes for a float that is not finite. JSON has
// no such literal.
var pythonNumber = regexp.MustCompile(`^-?(?:NaN|Infinity)`)

// withoutPythonNumbers puts null in place of each such literal. The warnings name the key
// before it. Text between quotes stays as it is.
func withoutPythonNumbers(data []byte) ([]byte, []Warning) {
	var out bytes.Buffer
	var warnings []Warning
	key := "" // the last string
	for i := 0; i < len(data); {
		if data[i] == '"' {
			end := i + 1
			for end < len(data) && data[end] != '"' {
				if data[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(data))
			if text, ok := asText(json.RawMessage(data[i:end])); ok {
				key = text
			}
			out.Write(data[i:end])
			i = end
			continue
		}
		if literal := pythonNumber.Find(data[i:]); literal != nil {
			warnings = append(warnings, Warning{Field: clip(key), Value: string(literal), Problem: "is no number in JSON, and is read as null"})
			out.WriteString("null")
			i += len(literal)
			continue
		}
		out.WriteByte(data[i])
		i++
	}
	return out.Bytes(), warnings
}
