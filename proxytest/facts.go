package proxytest

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/seed3262c777/smtpproxy"
)

// This file reads and writes the fields that a dialogue in a file names.

// defaultClient is who has connected where a test says nothing else.
var defaultClient = smtpproxy.Connection{
	RemoteIP:   netip.AddrFrom4([4]byte{192, 0, 2, 1}),
	RemotePort: 49152,
	LocalIP:    netip.AddrFrom4([4]byte{192, 0, 2, 25}),
	LocalPort:  25,
}

// look returns the value that a path leads to, such as "Connection.HELO.Host".
func look(conn smtpproxy.Connection, txn smtpproxy.Transaction, path string) (string, error) {
	root, rest, _ := strings.Cut(path, ".")
	var v any
	switch root {
	case "Connection":
		v = conn
	case "Transaction":
		v = txn
	default:
		return "", fmt.Errorf("%q is nothing to look at: begin with a field, as in = Connection.HELO.Host or = Transaction.Sender", path)
	}
	if rest == "ID" {
		return "", fmt.Errorf("%s is another one each time", path)
	}
	at := root
	for rest != "" {
		var name string
		name, rest, _ = strings.Cut(rest, ".")
		var err error
		if v, err = member(v, at, name); err != nil {
			return "", err
		}
		at += "." + name
	}
	text, ok := printed(v)
	if !ok {
		return "", fmt.Errorf("%s is more than one value: it has %s", at, strings.Join(members(v), ", "))
	}
	return text, nil
}

// absent is the value of what isn't there.
const absent = "(none)"

// member returns what a value has of that name; at is the value's own.
func member(v any, at, name string) (any, error) {
	switch v := v.(type) {
	case smtpproxy.Recipients:
		if name == "Len" {
			return v.Len(), nil
		}
		i, err := strconv.Atoi(name)
		switch {
		case err == nil && i >= 0 && i < v.Len():
			return v.At(i), nil
		case err == nil && i >= 0:
			return smtpproxy.Recipient{Recipient: absent}, nil
		}
	case smtpproxy.Params:
		if name == "Len" {
			return v.Len(), nil
		}
		if value, ok := v.Get(name); ok {
			return value, nil
		}
		return absent, nil
	case smtpproxy.PeerCert:
		switch name {
		case "Verified":
			return v.Verified(), nil
		case "X509":
			return nil, fmt.Errorf("%s.%s is no single value: look at it in a test in Go", at, name)
		}
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Struct {
		if f, ok := r.Type().FieldByName(name); ok && f.IsExported() {
			return r.FieldByIndex(f.Index).Interface(), nil
		}
	}
	if has := members(v); len(has) > 0 {
		return nil, fmt.Errorf("%s has no %s: it has %s", at, name, strings.Join(has, ", "))
	}
	return nil, fmt.Errorf("%s has no %s: it is a single value", at, name)
}

// members returns the names of what a value has.
func members(v any) (names []string) {
	switch v.(type) {
	case smtpproxy.Recipients:
		return []string{"Len", "0", "1, ..."}
	case smtpproxy.Params:
		return []string{"Len", "SIZE, ..."}
	case smtpproxy.PeerCert:
		return []string{"Error", "Err", "Verified"}
	}
	if _, single := printed(v); single || reflect.ValueOf(v).Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
		if f.IsExported() && f.Name != "ID" {
			names = append(names, f.Name)
		}
	}
	return names
}

// printed returns a single value as text.
func printed(v any) (text string, ok bool) {
	switch v := v.(type) {
	case nil:
		return absent, true // an error that there isn't
	case error:
		text = v.Error()
	case smtpproxy.Address:
		text = v.String()
	case encoding.TextMarshaler:
		b, err := v.MarshalText()
		return string(b), err == nil
	default:
		switch r := reflect.ValueOf(v); r.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32:
			text = fmt.Sprint(v)
		default:
			return "", false
		}
	}
	if q := strconv.Quote(text); len(q) != len(text)+2 || strings.TrimSpace(text) != text {
		return q, true
	}
	return text, true
}

// tell sets fields of a struct: "RemoteIP=192.0.2.7 TLS.SNI=mx.example".
func tell(into any, text string) error {
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		path, value, ok := strings.Cut(text, "=")
		if !ok || path == "" || strings.Contains(path, " ") {
			return fmt.Errorf("%q is no field with a value, such as %s", text, exampleOf(into))
		}
		if quoted, err := strconv.QuotedPrefix(value); err == nil {
			text = value[len(quoted):]
			value, _ = strconv.Unquote(quoted)
		} else {
			value, text, _ = strings.Cut(value, " ")
		}
		if err := set(reflect.ValueOf(into).Elem(), path, value); err != nil {
			return err
		}
	}
	return nil
}

func exampleOf(into any) string {
	if _, ok := into.(*smtpproxy.TLS); ok {
		return "SNI=mx.example"
	}
	return "RemoteIP=192.0.2.7"
}

// set sets a field.
func set(v reflect.Value, path, value string) error {
	in := v.Type().Name()
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() != reflect.Struct || isText(v) {
			return fmt.Errorf("%s has no %s", in, path)
		}
		f, ok := v.Type().FieldByName(name)
		if !ok || !f.IsExported() {
			return fmt.Errorf("%s has no field %s: it has %s", in, path, strings.Join(members(v.Interface()), ", "))
		}
		v = v.FieldByIndex(f.Index)
	}
	var err error
	switch {
	case isText(v):
		err = v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(value))
	case v.Kind() == reflect.String:
		v.SetString(value)
	case v.Kind() == reflect.Bool:
		var b bool
		b, err = strconv.ParseBool(value)
		v.SetBool(b)
	case v.CanInt():
		var i int64
		i, err = strconv.ParseInt(value, 10, v.Type().Bits())
		v.SetInt(i)
	case v.CanUint():
		var u uint64
		u, err = strconv.ParseUint(value, 10, v.Type().Bits())
		v.SetUint(u)
	default:
		return fmt.Errorf("%s can't be told in a file: set it in a test in Go, with ResumeSession", path)
	}
	if err != nil {
		return fmt.Errorf("%s can't be %q: %w", path, value, err)
	}
	return nil
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// toldOf returns the text with which tell makes v of what was before, each with a blank
// before it.
func toldOf(v, before any) string { return changed("", reflect.ValueOf(v), reflect.ValueOf(before)) }

func changed(path string, v, before reflect.Value) (text string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		name, is, was := path+f.Name, v.Field(i), before.Field(i)
		value, single := printed(is.Interface())
		switch {
		case !single && is.Kind() == reflect.Struct:
			text += changed(name+".", is, was)
		case single && is.Kind() != reflect.Interface && !is.Equal(was):
			if value == "" || strings.Contains(value, " ") && value[0] != '"' {
				value = strconv.Quote(value)
			}
			text += " " + name + "=" + value
		}
	}
	return text
}
