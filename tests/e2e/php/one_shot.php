<?php
// one_shot.php PORT TOPIC: waits for one frame on a topic, prints it, and ends. A ping counts as an empty answer.
require __DIR__ . '/client.php';

[, $port, $topic] = $argv;
$stream = connect((int) $port, '/ws?topic=' . urlencode($topic));
[$opcode, $payload] = read_frame($stream) ?? fail('the end instead of a message');
echo $opcode === 9 ? '' : $payload;
