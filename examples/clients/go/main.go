// Enqueues tasks with franz-go and twmb/avro; all it knows of taskmill is Task.avsc.
//
//	go run . BOOTSTRAP TOPIC TASK_NAME Task.avsc [crc32] < LINES
//
// Each line on stdin is a task, {"id": …, "args": {…}}. crc32 is librdkafka's partitioner,
// to see what the wrong one costs.
package main

import (
	"context"
	"encoding/json"
	"hash/crc32"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	schema, err := os.ReadFile(os.Args[4])
	check(err)
	task, err := avro.Parse(string(schema))
	check(err)
	// By default it waits for acks=all, and the key decides the partition by murmur2, as it has to.
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(os.Args[1], ",")...)}
	if len(os.Args) > 5 {
		hasher := kgo.SaramaHasher(crc32.ChecksumIEEE)
		options = append(options, kgo.RecordPartitioner(kgo.StickyKeyPartitioner(hasher)))
	}
	client, err := kgo.NewClient(options...)
	check(err)
	defer client.Close()
	lines, records := json.NewDecoder(os.Stdin), []*kgo.Record{}
	for lines.More() {
		var call struct {
			ID   string
			Args json.RawMessage
		}
		check(lines.Decode(&call))
		// Avro's single-object encoding, what is left out taking the schema's defaults.
		value, err := task.AppendSingleObject(nil, map[string]any{
			"id": call.ID, "name": os.Args[3], "payload": []byte(call.Args),
			"enqueued_at": time.Now(), "headers": map[string]string{"client": "go"}})
		check(err)
		headers := []kgo.RecordHeader{{Key: "client", Value: []byte("go")}}
		records = append(records, &kgo.Record{
			Topic: os.Args[2], Key: []byte(call.ID), Value: value, Headers: headers})
	}
	check(client.ProduceSync(context.Background(), records...).FirstErr())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
