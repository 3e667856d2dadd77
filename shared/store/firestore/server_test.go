package firestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/phasegate/phasegate/shared/store"
)

// script is a server that does what a test says, for the failures that a real one
// cannot be brought to.
type script struct {
	pb.UnimplementedFirestoreServer
	commit   func(*pb.CommitRequest) (*pb.CommitResponse, error)
	batchGet func(*pb.BatchGetDocumentsRequest, pb.Firestore_BatchGetDocumentsServer) error
	query    func(*pb.RunQueryRequest, pb.Firestore_RunQueryServer) error
}

func (s *script) Commit(_ context.Context, r *pb.CommitRequest) (*pb.CommitResponse, error) {
	return s.commit(r)
}

func (s *script) BatchGetDocuments(r *pb.BatchGetDocumentsRequest, out pb.Firestore_BatchGetDocumentsServer) error {
	return s.batchGet(r, out)
}

func (s *script) RunQuery(r *pb.RunQueryRequest, out pb.Firestore_RunQueryServer) error {
	return s.query(r, out)
}

func (s *script) BeginTransaction(context.Context, *pb.BeginTransactionRequest) (*pb.BeginTransactionResponse, error) {
	return &pb.BeginTransactionResponse{Transaction: []byte("tx")}, nil
}

// serve starts the server and returns a store on it.
func (s *script) serve(t *testing.T) *Store {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterFirestoreServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Setenv("FIRESTORE_EMULATOR_HOST", listener.Addr().String())
	opened, err := Open(t.Context(), "project", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := opened.Close()
		server.Stop()
		if err := errors.Join(err, <-served); err != nil {
			t.Error(err)
		}
	})
	return opened
}

func at(us int64) *timestamppb.Timestamp { return timestamppb.New(time.UnixMicro(us)) }

func document(name string, us int64) *pb.Document {
	return &pb.Document{Name: name, CreateTime: at(us), UpdateTime: at(us)}
}

var doc = store.Ref{Collection: "c", ID: "doc"}

// A commit whose answer is lost is repeated, and the repetition meets the first:
// what package store warns of.
func TestApply_RetryAfterLostResponseMeetsFirstWrite(t *testing.T) {
	commits := 0
	s := (&script{commit: func(*pb.CommitRequest) (*pb.CommitResponse, error) {
		if commits++; commits == 1 {
			return nil, status.Error(codes.Internal, "connection reset after the commit")
		}
		return nil, status.Error(codes.AlreadyExists, "entity already exists")
	}}).serve(t)
	if _, err := s.Apply(t.Context(), store.Create(doc)); !errors.Is(err, store.ErrExists) || commits != 2 {
		t.Errorf("%d commits, %v", commits, err)
	}
}

func TestApply_LockTimeoutIsRetried(t *testing.T) {
	var requests []*pb.CommitRequest
	s := (&script{commit: func(r *pb.CommitRequest) (*pb.CommitResponse, error) {
		if requests = append(requests, r); len(requests) < 4 {
			return nil, status.Error(codes.Aborted, "Transaction lock timeout")
		}
		return &pb.CommitResponse{WriteResults: []*pb.WriteResult{{UpdateTime: at(7)}, {}}}, nil
	}}).serve(t)
	versions, err := s.Apply(t.Context(), store.Merge(doc, store.F(1, "n")), store.DeleteIf(store.Ref{Collection: "c", ID: "x"}, 5))
	if err != nil || !slices.Equal(versions, []store.Version{7, 0}) {
		t.Fatalf("Apply = %v, %v", versions, err)
	}
	for _, r := range requests {
		if len(r.Writes) != 2 || r.Transaction != nil {
			t.Errorf("commit of %d writes in transaction %q, want 2 in none", len(r.Writes), r.Transaction)
		}
	}
}

func TestApply_OversizedDocumentIsNotSent(t *testing.T) {
	s := (&script{commit: func(*pb.CommitRequest) (*pb.CommitResponse, error) {
		t.Error("sent")
		return nil, status.Error(codes.InvalidArgument, "maximum entity size")
	}}).serve(t)
	write := store.Merge(doc, store.F(strings.Repeat("x", store.MaxDocumentBytes), "s"))
	if _, err := s.Apply(t.Context(), write); !errors.Is(err, store.ErrTooLarge) {
		t.Error(err)
	}
}

// The client asks anew for the documents that a broken answer lacks; those are of
// a later snapshot than the others.
func TestGet_BrokenResponseDoesNotMixSnapshots(t *testing.T) {
	snapshots := int64(0)
	inTransaction := 0
	s := (&script{
		commit: func(r *pb.CommitRequest) (*pb.CommitResponse, error) {
			if len(r.Writes) > 0 {
				t.Errorf("a Get wrote %v", r.Writes)
			}
			return &pb.CommitResponse{}, nil
		},
		batchGet: func(r *pb.BatchGetDocumentsRequest, out pb.Firestore_BatchGetDocumentsServer) error {
			snapshots++
			if r.GetTransaction() != nil {
				inTransaction++
			}
			for i, name := range r.Documents {
				if snapshots == 1 && i == 1 {
					return status.Error(codes.Unavailable, "connection reset")
				}
				found := &pb.BatchGetDocumentsResponse_Found{Found: document(name, snapshots)}
				if err := out.Send(&pb.BatchGetDocumentsResponse{Result: found, ReadTime: at(100 + snapshots)}); err != nil {
					return err
				}
			}
			return nil
		},
	}).serve(t)
	snap, err := s.Get(t.Context(), store.Ref{Collection: "c", ID: "a"}, store.Ref{Collection: "c", ID: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Docs[0].Version != 3 || snap.Docs[1].Version != 3 || snap.ReadTime.UnixMicro() != 103 || inTransaction != 1 {
		t.Errorf("read %+v, %d of %d reads in a transaction", snap, inTransaction, snapshots)
	}
}

func TestScan_ResumesAfterLastDocument(t *testing.T) {
	const ids = 10
	queries := 0
	s := (&script{query: func(r *pb.RunQueryRequest, out pb.Firestore_RunQueryServer) error {
		queries++
		start := r.GetStructuredQuery().GetStartAt()
		from := start.GetValues()[0].GetReferenceValue()
		for i := range ids {
			name := fmt.Sprintf("projects/project/databases/(default)/documents/c/id-%d", i)
			if name < from || name == from && !start.GetBefore() {
				continue
			}
			if i == 3*queries {
				return status.Error(codes.Unavailable, "connection reset")
			}
			if err := out.Send(&pb.RunQueryResponse{Document: document(name, 1), ReadTime: at(1)}); err != nil {
				return err
			}
		}
		return nil
	}}).serve(t)
	var got, want []string
	for i := range ids {
		want = append(want, fmt.Sprintf("id-%d", i))
	}
	for doc, err := range s.Scan(t.Context(), "c", "id-0", "id-9") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, doc.Ref.ID)
	}
	if !slices.Equal(got, want) || queries != 4 {
		t.Errorf("%d queries: %v", queries, got)
	}
}

// A loop that ends early pays for one page, and a long list never comes in one answer.
func TestScan_ReadsAPageAtATime(t *testing.T) {
	const ids = 2*store.ScanPage + 50
	var mu sync.Mutex // a query whose reader has left may still be served
	var sent []int    // the most documents that each query asks for
	s := (&script{query: func(r *pb.RunQueryRequest, out pb.Firestore_RunQueryServer) error {
		start, limit := r.GetStructuredQuery().GetStartAt(), ids
		if l := r.GetStructuredQuery().GetLimit(); l != nil {
			limit = int(l.GetValue())
		}
		mu.Lock()
		sent = append(sent, limit)
		mu.Unlock()
		found := 0
		for i := range ids {
			name := fmt.Sprintf("projects/project/databases/(default)/documents/c/id-%03d", i)
			if from := start.GetValues()[0].GetReferenceValue(); name < from || name == from && !start.GetBefore() || found == limit {
				continue
			}
			if err := out.Send(&pb.RunQueryResponse{Document: document(name, 1), ReadTime: at(1)}); err != nil {
				return err
			}
			found++
		}
		return nil
	}}).serve(t)
	for _, c := range []struct {
		docs int // after which the loop ends
		sent []int
	}{{ids + 1, []int{100, 100, 100}}, {5, []int{100}}, {store.ScanPage, []int{100}}, {store.ScanPage + 1, []int{100, 100}}} {
		mu.Lock()
		sent = nil
		mu.Unlock()
		n := 0
		for _, err := range s.Scan(t.Context(), "c", "id-0", "id-9") {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == c.docs {
				break
			}
		}
		mu.Lock()
		sent := slices.Clone(sent)
		mu.Unlock()
		if n != min(c.docs, ids) || !slices.Equal(sent, c.sent) {
			t.Errorf("%d documents in queries of %v, want %d in %v", n, sent, min(c.docs, ids), c.sent)
		}
	}
}

func TestGet_ReadsForeignValueTypes(t *testing.T) {
	s := (&script{batchGet: func(r *pb.BatchGetDocumentsRequest, out pb.Firestore_BatchGetDocumentsServer) error {
		d := document(r.Documents[0], 1)
		d.Fields = map[string]*pb.Value{
			"bytes": {ValueType: &pb.Value_BytesValue{BytesValue: []byte("x")}},
			"list": {ValueType: &pb.Value_ArrayValue{ArrayValue: &pb.ArrayValue{Values: []*pb.Value{
				{ValueType: &pb.Value_MapValue{MapValue: &pb.MapValue{Fields: map[string]*pb.Value{
					"at": {ValueType: &pb.Value_TimestampValue{TimestampValue: at(5)}},
				}}}},
			}}}},
		}
		return out.Send(&pb.BatchGetDocumentsResponse{Result: &pb.BatchGetDocumentsResponse_Found{Found: d}, ReadTime: at(1)})
	}}).serve(t)
	snap, err := s.Get(t.Context(), doc)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(snap.Docs[0].Data)
	if want := fmt.Sprint(map[string]any{"bytes": []byte("x"), "list": []any{map[string]any{"at": time.UnixMicro(5).UTC()}}}); got != want {
		t.Errorf("read %v, want %v", got, want)
	}
}
