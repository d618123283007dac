package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

const (
	mainGroup  = "main"
	adminGroup = "admin"
)

// addAdminCommands adds the commands for administration that are not added elsewhere.
func addAdminCommands(root *cobra.Command, shared *sharedFlags) {
	root.AddGroup(&cobra.Group{ID: mainGroup, Title: "Commands:"}, &cobra.Group{ID: adminGroup, Title: "Administration:"})
	for _, cmd := range root.Commands() {
		cmd.GroupID = mainGroup
	}
	for _, cmd := range []*cobra.Command{
		newListCommand(shared), newShowCommand(shared), newStatsCommand(shared), newQueuesCommand(shared), newWorkersCommand(shared), newHistoryCommand(shared),
		newRetryCommand(shared), newCompleteCommand(shared), newFailCommand(shared), newRescheduleCommand(shared), newRemoveCommand(shared),
		newForceUnlockCommand(shared), newCleanupCommand(shared), newCancelCommand(shared),
	} {
		cmd.GroupID = adminGroup
		root.AddCommand(cmd)
	}
}

// someArgs asks for at least one argument, of the given kind.
func someArgs(kind string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{command: cmd.CommandPath(), err: errors.New("name " + kind)}
		}
		return nil
	}
}

// wordsOf are the arguments, with - replaced by the words on standard input.
func wordsOf(args []string, stdin io.Reader) ([]string, error) {
	var words []string
	read := false
	for _, arg := range args {
		if arg != "-" {
			words = append(words, arg)
			continue
		}
		if read {
			return nil, errors.New("- stands twice, and standard input can be read once")
		}
		read = true
		text, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		words = append(words, strings.Fields(string(text))...)
	}
	return words, nil
}

// idsOf are the ids of jobs among the arguments, or on standard input.
func idsOf(args []string, stdin io.Reader) ([]int64, error) {
	words, err := wordsOf(args, stdin)
	if err != nil {
		return nil, err
	}
	ids := make([]int64, len(words))
	for i, word := range words {
		if ids[i], err = strconv.ParseInt(word, 10, 64); err != nil {
			return nil, fmt.Errorf("%q is not the id of a job: ids are numbers", word)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
