<?php
// publisher.php PORT TOPIC TEXT: publishes one text on a topic and ends at once.
require __DIR__ . '/client.php';

[, $port, $topic, $text] = $argv;
send_frame(connect((int) $port, '/ws?topic=' . urlencode($topic)), 1, $text);
