extends Node
## Hosts and joins games through noray. For Godot 4 with the add-on netfox.noray.
##
## Set SERVER to the name of your server and make this file an autoload named NorayGame. A game
## calls `await NorayGame.host()` and shows `Noray.oid`, or calls `await NorayGame.join(code)`.
## Both say whether they succeeded, and end the game before.

## What the player should read.
signal told(words: String)

enum Role { NONE, HOST, CLIENT }

const SERVER := "noray.example"
## Whether join codes begin with the name of their server and a hyphen.
const HAS_SEVERAL_SERVERS := false
const MAX_CLIENTS := 16

const CONNECT_SECONDS := 5
const ANSWER_SECONDS := 5.0
const HANDSHAKE_SECONDS := 1.0
const ENET_SECONDS := 3.0
const AGAIN_SECONDS := 5.0
const AGAIN_TIMES := 12

## After these codes the same can succeed a moment later.
const AGAIN := ["draining", "host-away", "host-no-address", "server-full"]

const WORDS := {
	"draining": "The server restarts. Please try again in a minute.",
	"host-away": "The host has lost its connection. Please try again.",
	"host-no-address": "The host is not ready. Please try again.",
	"ids-exhausted": "The server has no join codes left.",
	"missing-oid": "Please enter a join code.",
	"rate-limited": "Too many attempts. Please wait for some seconds.",
	"relays-exhausted": "The server is full. Please try again later.",
	"self": "This is your own join code.",
	"server-full": "The server is full. Please try again later.",
	"unconfirmed": "The server cannot be sure of your address. Do you or the host use a VPN?",
	"unknown-oid": "No game has this join code.",
}

var _role := Role.NONE
var _is_busy := false
## A host whose join code works.
var _is_listed := false
var _has_ids := false
## The code of the server's last error, if there is one.
var _refusal := ""
## The server takes no connections.
var _is_down := false
var _why := ""
## Where a client reaches the host: "address" and "port".
var _partner := {}


func _ready() -> void:
	ProjectSettings.set_setting("network/limits/tcp/connect_timeout_seconds", CONNECT_SECONDS)
	Noray.on_command.connect(_on_command)
	Noray.on_pid.connect(func(_pid: String) -> void: _has_ids = true)
	Noray.on_connect_nat.connect(_on_partner)
	Noray.on_connect_relay.connect(_on_partner)
	multiplayer.server_disconnected.connect(leave, CONNECT_DEFERRED)


func _process(_delta: float) -> void:
	if _is_listed and not Noray.is_connected_to_host():
		_is_listed = false
		told.emit("The server is gone: nobody else can join this game.")


func host() -> bool:
	return await _play(Role.HOST, _host)


func join(code: String) -> bool:
	return await _play(Role.CLIENT, _join.bind(code.strip_edges()))


## Also ends what `host` or `join` still try.
func leave() -> void:
	_role = Role.NONE
	_is_listed = false
	if Noray.is_connected_to_host():
		Noray.disconnect_from_host()
	_close_peer()


func _play(role: Role, attempt: Callable) -> bool:
	if _is_busy:
		return false
	leave()
	_is_busy = true
	_role = role
	var succeeded: bool = await _try_again(attempt)
	_is_busy = false
	if not succeeded:
		if _role != Role.NONE:
			told.emit(_why)
		leave()
	return succeeded


func _try_again(attempt: Callable) -> bool:
	for _time in AGAIN_TIMES:
		_refusal = ""
		_is_down = false
		if await attempt.call() and _role != Role.NONE:
			return true
		if _role == Role.NONE or not (_is_down or _refusal in AGAIN):
			return false
		told.emit(_why)
		await _until(func() -> bool: return _role == Role.NONE, AGAIN_SECONDS)
	return false


func _host() -> bool:
	if not await _register(SERVER):
		return false
	var peer := ENetMultiplayerPeer.new()
	if peer.create_server(Noray.local_port, MAX_CLIENTS) != OK:
		return _fail("The game cannot listen on its port.")
	multiplayer.multiplayer_peer = peer
	_is_listed = true
	return true


func _join(code: String) -> bool:
	if not await _register(_server_of(code)):
		return false
	if await _ask(Noray.connect_nat.bind(code)):
		if await _enter():
			return true
	elif _refusal != "no-common-family":
		return _fail("The server does not answer.")
	if not await _ask(Noray.connect_relay.bind(code)):
		return _fail("The server does not answer.")
	if not await _enter():
		return _fail("The host does not answer.")
	return true


func _server_of(code: String) -> String:
	if HAS_SEVERAL_SERVERS:
		return code.get_slice("-", 0) + "." + SERVER
	return SERVER


## Gets ids from the server, and tells it the UDP address of this player.
func _register(server: String) -> bool:
	# Also where the last connection has broken: the add-on cannot begin another before.
	Noray.disconnect_from_host()
	IP.clear_cache()
	var error: Error = await Noray.connect_to_host(server)
	if error != OK:
		# Any other error means that there is no such server.
		_is_down = error == ERR_CONNECTION_ERROR
		return _fail("The server cannot be reached.")
	_has_ids = false
	Noray.register_host()
	if not await _answered(func() -> bool: return _has_ids):
		return _fail("The server does not answer.")
	error = await Noray.register_remote(8809, ANSWER_SECONDS)
	if error != OK:
		return _fail("UDP to the server is blocked. Is there a firewall?")
	return true


func _ask(question: Callable) -> bool:
	_partner = {}
	_refusal = ""
	question.call()
	return await _answered(func() -> bool: return not _partner.is_empty())


## Connects to the host at the address that the server told, and gives up after a while.
func _enter() -> bool:
	var port: int = _partner.port
	var udp := PacketPeerUDP.new()
	udp.bind(Noray.local_port)
	udp.set_dest_address(_partner.address, port)
	var error: Error = await PacketHandshake.over_packet_peer(udp, HANDSHAKE_SECONDS)
	# A symmetric router sends from another port than the one that the server saw.
	if error == OK and udp.get_packet_ip() == _partner.address:
		port = udp.get_packet_port()
	udp.close()
	# Also if nothing was heard: the host's ENet answers where it hears the client, its handshake
	# goes only where the server saw it.
	var peer := ENetMultiplayerPeer.new()
	error = peer.create_client(_partner.address, port, 0, 0, 0, Noray.local_port)
	if error == OK and _role != Role.NONE:
		multiplayer.multiplayer_peer = peer
		await _until(func() -> bool: return not _is_connecting(peer), ENET_SECONDS)
		if peer.get_connection_status() == MultiplayerPeer.CONNECTION_CONNECTED:
			return true
	peer.close()
	_close_peer()
	return false


func _is_connecting(peer: ENetMultiplayerPeer) -> bool:
	return peer.get_connection_status() == MultiplayerPeer.CONNECTION_CONNECTING


func _close_peer() -> void:
	multiplayer.multiplayer_peer.close()
	multiplayer.multiplayer_peer = OfflineMultiplayerPeer.new()


func _on_command(command: String, data: String) -> void:
	if command == "error" or command.ends_with("-error"):
		_refusal = data
	elif command == "relay-limit":
		push_warning("The relay's limit is reached: ", data)


func _on_partner(address: String, port: int) -> void:
	if _role == Role.CLIENT:
		_partner = {"address": address, "port": port}
	elif _role == Role.HOST:
		var peer := multiplayer.multiplayer_peer as ENetMultiplayerPeer
		if peer != null:
			PacketHandshake.over_enet_peer(peer, address, port)


## Waits for an answer of the server. Says whether it came.
func _answered(has_come: Callable) -> bool:
	var is_over := func() -> bool:
		var is_refused := _refusal != "" or _role == Role.NONE
		return has_come.call() or is_refused or not Noray.is_connected_to_host()
	await _until(is_over, ANSWER_SECONDS)
	return has_come.call()


func _until(is_over: Callable, seconds: float) -> void:
	var end := Time.get_ticks_msec() + int(seconds * 1000.0)
	while not is_over.call() and Time.get_ticks_msec() < end:
		await get_tree().process_frame


## Keeps the words for the player: those for the server's code, or else these.
func _fail(words: String) -> bool:
	_why = words
	if _refusal != "":
		_why = WORDS.get(_refusal, "The server refuses: " + _refusal)
	return false
