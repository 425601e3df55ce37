// Enqueues tasks with kafka-clients and Apache Avro; all it knows of taskmill is Task.avsc.
//
//     java -cp 'libs/*' Enqueue.java BOOTSTRAP TOPIC TASK_NAME Task.avsc [PARTITIONER] < LINES
//
// Each line on stdin is a task, {"id": …, "args": {…}}. PARTITIONER is the class of a partitioner,
// to see what the wrong one costs.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteBufferSerializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Enqueue {
    public static void main(String[] args) throws Exception {
        Schema schema = new Schema.Parser().parse(new File(args[3]));
        // Writes Avro's single-object encoding: a marker, the schema's fingerprint, the record.
        var encoder = new BinaryMessageEncoder<GenericRecord>(new GenericData(), schema);
        var settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("acks", "all");
        // By default the key decides the partition by murmur2, as it has to.
        if (args.length > 4) settings.put("partitioner.class", args[4]);
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var sent = new ArrayList<Future<?>>();
        try (var producer = new KafkaProducer<>(
                settings, new StringSerializer(), new ByteBufferSerializer())) {
            for (String line; (line = lines.readLine()) != null; ) {
                JsonNode call = new ObjectMapper().readTree(line);
                byte[] payload = call.get("args").toString().getBytes(StandardCharsets.UTF_8);
                // The builder fills in the schema's defaults.
                GenericRecord task = new GenericRecordBuilder(schema)
                        .set("id", call.get("id").asText()).set("name", args[2])
                        .set("payload", ByteBuffer.wrap(payload))
                        .set("enqueued_at", System.currentTimeMillis())
                        .set("headers", Map.of("client", "java")).build();
                var record = new ProducerRecord<>(
                        args[1], call.get("id").asText(), encoder.encode(task));
                record.headers().add("client", "java".getBytes(StandardCharsets.UTF_8));
                sent.add(producer.send(record));
            }
            for (Future<?> one : sent) one.get();  // throws where one was not acknowledged
        }
    }
}
