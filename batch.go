package gworker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/gworker/gworker/internal/contain"
)

// BatchJob is a job of a batch task as its handler gets it. Its Payload has the elements of
// the stored array that decode as T. The other elements fail, and the handler does not see
// them.
type BatchJob[T any] = Job[[]T]

// NewBatchTask returns a task whose jobs have a JSON array as payload, and whose
// handler says for each element whether it succeeded:
//
//	gworker.NewBatchTask("notify", func(ctx context.Context, job *gworker.BatchJob[Note]) ([]error, error) {
//		failures := make([]error, len(job.Payload))
//		for i, note := range job.Payload {
//			failures[i] = send(ctx, note)
//		}
//		return failures, nil
//	})
//
// A nil list, or a list of nils, completes the job. Otherwise the attempt fails, and only
// the failed elements stay in the payload, in their order and as they were stored: the next
// attempt is for them alone. The job's last error is "Batch failures:" and a line for each
// of them, as in Node's workers; the event's error is a *BatchError.
//
// A list whose length is not that of job.Payload fails the whole job with its payload
// unchanged, as in Rust's workers. (Node's workers log a warning and count it as full
// success.) So does an error as second result, and then the list is ignored; return Snooze
// and Discard there. If all failed elements have a Snooze, the job is snoozed for the
// longest time; if all have a Discard, it fails permanently. In a mixture, they are failures
// like the others, and the handler gets them again: an element leaves the row only when it
// has succeeded.
//
// A payload that is not an array fails the attempt. (Node's workers call the handler with it
// and ignore a list that it returns.) The handler is not called without elements; an empty
// array completes.
func NewBatchTask[T any](identifier string, handle func(ctx context.Context, job *BatchJob[T]) (failures []error, err error)) Task {
	if handle == nil {
		return Task{identifier: identifier} // NewWorker names it
	}
	return newTask(identifier, func(ctx context.Context, job *BatchJob[T], payload json.RawMessage) error {
		elements, err := elementsOf(payload)
		if err != nil {
			return err
		}
		failures := make([]error, len(elements))
		places := make([]int, 0, len(elements)) // of the elements that the handler sees
		job.Payload = make([]T, 0, len(elements))
		for i, element := range elements {
			var value T
			if err := decode(element, &value); err != nil {
				failures[i] = fmt.Errorf("element %d: %w", i, err)
				continue
			}
			places = append(places, i)
			job.Payload = append(job.Payload, value)
		}
		if len(places) > 0 {
			results, err := handle(ctx, job)
			switch {
			case err != nil:
				return err
			case results != nil && len(results) != len(places):
				return fmt.Errorf("the batch handler returned %d results for %d elements: it must return one for each, or nil",
					len(results), len(places))
			}
			for i, result := range results {
				failures[places[i]] = result
			}
		}
		return batchError(elements, failures)
	})
}

func batchError(elements []json.RawMessage, failures []error) error {
	var failed []BatchFailure
	for i, err := range failures {
		if err != nil {
			failed = append(failed, BatchFailure{Index: i, Payload: elements[i], Err: contain.Read(err)})
		}
	}
	if failed == nil {
		return nil
	}
	return &BatchError{Failed: failed, Total: len(elements)}
}

var errNoArray = errors.New("the payload of a batch job must be a JSON array, an element for each piece of work")

func elementsOf(payload json.RawMessage) ([]json.RawMessage, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(payload, " \t\r\n"), []byte("[")) {
		return nil, errNoArray
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(payload, &elements); err != nil {
		return nil, fmt.Errorf("decoding the payload: %w", err)
	}
	return elements, nil
}
